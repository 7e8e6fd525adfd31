#pragma once
// PostProcessor: the "post_processor" of tokenizer.json, as far as it changes the ids of one
// sequence: what stands before and after them. Constant; any thread.

#include <cstdint>
#include <vector>

#include "common/formats/tokenizer/json_view.h"

namespace weft {

struct PostProcessor {
  std::vector<int32_t> before;
  std::vector<int32_t> after;
};

/// Unknown types are errors that name them. `depth` counts nested Sequences.
[[nodiscard]] Result<PostProcessor> ReadPostProcessor(const JsonView& json, int depth = 0);

}  // namespace weft
