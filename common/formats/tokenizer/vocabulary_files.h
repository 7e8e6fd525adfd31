#pragma once
// The kinds of tokenizer files, each as a Tokenizer.

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

/// From a BERT folder's vocab.txt: one token a line, the line's number from 0 its id. Everything
/// else is BERT's own: its normaliser (TokenizerSettings::do_lower_case), WordPiece, [CLS] … [SEP].
[[nodiscard]] Result<std::unique_ptr<Tokenizer>> ReadVocabularyText(
    std::string_view text, const TokenizerSettings& settings);

}  // namespace weft
