#pragma once
// The two kinds of tokenizer files, each as a Tokenizer.

#include <memory>
#include <string_view>

#include "common/base/result.h"
#include "common/formats/tokenizer.h"
#include "common/formats/tokenizer/settings.h"

namespace weft {

/// From the text of a tokenizer.json.
[[nodiscard]] Result<std::unique_ptr<Tokenizer>> ReadTokenizerJson(
    std::string_view text, const TokenizerSettings& settings);

/// From the bytes of a sentencepiece tokenizer.model.
[[nodiscard]] Result<std::unique_ptr<Tokenizer>> ReadSentencePiece(
    std::string_view bytes, const TokenizerSettings& settings);

}  // namespace weft
