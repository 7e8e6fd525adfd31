#pragma once
// Decoder: the "decoder" of tokenizer.json: tokens → pieces of text, which are then joined.
// Constant; any thread.

#include <memory>
#include <string>
#include <vector>

#include "common/formats/tokenizer/json_view.h"

namespace weft {

class Decoder {
 public:
  virtual ~Decoder() = default;
  /// The pieces are valid UTF-8 before and after.
  virtual void Apply(std::vector<std::string>& pieces) const = 0;
};

/// Unknown types are errors that name them. `depth` counts nested Sequences.
[[nodiscard]] Result<std::unique_ptr<Decoder>> ReadDecoder(const JsonView& json, int depth = 0);

/// What sentencepiece models with byte fallback need: U+2581 → blank, <0xNN> → bytes, and where
/// `strip_first` the first blank of the text goes.
[[nodiscard]] std::unique_ptr<Decoder> SentencePieceDecoder(bool strip_first);

}  // namespace weft
