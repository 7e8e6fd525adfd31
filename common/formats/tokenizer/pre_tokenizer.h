#pragma once
// PreTokenizer: the "pre_tokenizer" of tokenizer.json: cuts normalised text into the words that the
// model then tokenizes one by one. Constant; any thread.

#include <memory>
#include <string>
#include <vector>

#include "common/formats/tokenizer/json_view.h"
#include "common/formats/tokenizer/regex.h"

namespace weft {

/// A text and the words in it, in order; what lies between them is dropped. No word is empty.
struct Words {
  struct Word {
    TextRange range;
    bool at_start = false;  // the word begins where the whole input begins
  };
  std::string text;
  std::vector<Word> list;
};

class PreTokenizer {
 public:
  virtual ~PreTokenizer() = default;
  virtual void Apply(Words& words) const = 0;
};

/// Unknown types are errors that name them. `depth` counts nested Sequences.
[[nodiscard]] Result<std::unique_ptr<PreTokenizer>> ReadPreTokenizer(const JsonView& json,
                                                                     int depth = 0);

/// What becomes of the matches when a word is split.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
[[nodiscard]] Result<SplitBehavior> ReadSplitBehavior(const JsonView& name);

/// Cuts [0, size) at `matches` (ordered, without overlap) and appends the parts. `invert` takes the
/// matches for the text between them and the other way round.
void SplitAt(size_t size, const std::vector<TextRange>& matches, SplitBehavior behavior,
             bool invert, std::vector<TextRange>& parts);

}  // namespace weft
