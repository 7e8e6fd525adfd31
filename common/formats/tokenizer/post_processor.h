#pragma once
// PostProcessor: the "post_processor" of tokenizer.json, as far as it changes ids: what stands
// before and after those of one text, and how two texts become one sequence. Constant; any thread.

#include <cstdint>
#include <vector>

#include "common/formats/tokenizer/json_view.h"

namespace weft {

/// A stretch of a pair of texts: one of the two, or ids of its own.
struct PairPiece {
  enum class Source { kFirst, kSecond, kIds };
  Source source = Source::kIds;
  std::vector<int32_t> ids;  // kIds
  int32_t type = 0;          // of the text: 0 or 1
};

struct PostProcessor {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
  std::vector<PairPiece> pair;  // empty: the file says nothing of pairs
};

/// Unknown types are errors that name them. `depth` counts nested Sequences.
[[nodiscard]] Result<PostProcessor> ReadPostProcessor(const JsonView& json, int depth = 0);

}  // namespace weft
