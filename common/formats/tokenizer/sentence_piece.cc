// tokenizer.model: libsentencepiece encodes; what it does not do is what Hugging Face does around
// it: control tokens that stand literally in the text, tokens the folder adds, begin and end of
// text. This file is the door for the library's exceptions.

#include <algorithm>
#include <exception>

#include <sentencepiece_processor.h>

#include "common/base/str.h"
#include "common/formats/tokenizer/added_tokens.h"
#include "common/formats/tokenizer/decoder.h"
#include "common/formats/tokenizer/sentence_piece_proto.h"
#include "common/formats/tokenizer/vocabulary_files.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(std::unique_ptr<sentencepiece::SentencePieceProcessor> processor,
                         SentencePieceFacts facts, const TokenizerSettings& settings)
      : processor_(std::move(processor)),
        facts_(std::move(facts)),
        added_(Added(*processor_, facts_, settings), nullptr),
        decoder_(SentencePieceDecoder(facts_.add_dummy_prefix)) {
    if (settings.add_bos) before_ = Role(settings.bos_token, processor_->bos_id());
    if (settings.add_eos) after_ = Role(settings.eos_token, processor_->eos_id());
  }

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text, bool special) const override {
    std::vector<int32_t> ids;
    if (special) ids = before_;
    const std::string valid = ReplaceBadUtf8(text);
    for (const TokenOrText& part : added_.Split(valid, /*normalized=*/false)) {
      if (part.id >= 0) {
        ids.push_back(part.id);
      } else {
        AppendPieces(
            std::string_view(valid).substr(part.range.begin, part.range.end - part.range.begin),
            ids);
      }
    }
    if (special) ids.insert(ids.end(), after_.begin(), after_.end());
    return ids;
  }

  [[nodiscard]] std::string Decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::vector<std::string> pieces;
    for (const int32_t id : ids) {
      const AddedToken* added = added_.Find(id);
      if (added != nullptr && added->special && skip_special) continue;
      std::string piece = IdToToken(id);
      if (!piece.empty()) pieces.push_back(std::move(piece));
    }
    decoder_->Apply(pieces);
    std::string text;
    for (const std::string& piece : pieces) text += piece;
    return ReplaceBadUtf8(text);
  }

  [[nodiscard]] std::string IdToToken(int32_t id) const override {
    if (const AddedToken* added = added_.Find(id)) return added->content;
    if (id < 0 || static_cast<size_t>(id) >= facts_.pieces.size()) return "";
    return facts_.pieces[static_cast<size_t>(id)].text;
  }

  [[nodiscard]] std::optional<int32_t> TokenToId(std::string_view token) const override {
    if (const AddedToken* added = added_.Find(token)) return added->id;
    const int id = processor_->PieceToId(token);  // the unknown piece's where there is none
    if (IdToToken(id) != token) return std::nullopt;
    return id;
  }

  [[nodiscard]] int32_t vocab_size() const override {
    return std::max(static_cast<int32_t>(facts_.pieces.size()), added_.id_end());
  }

 private:
  static std::vector<AddedToken> Added(const sentencepiece::SentencePieceProcessor& processor,
                                       const SentencePieceFacts& facts,
                                       const TokenizerSettings& settings) {
    std::vector<AddedToken> tokens;
    for (size_t i = 0; i < facts.pieces.size(); ++i) {
      const auto& [text, type] = facts.pieces[i];
      if (type == SentencePieceFacts::kControl || type == SentencePieceFacts::kUnknown) {
        tokens.push_back({.content = text, .id = static_cast<int32_t>(i), .special = true});
      }
    }
    for (AddedToken token : settings.added) {
      if (token.content.empty()) continue;
      const int id = processor.PieceToId(token.content);
      const auto place = static_cast<size_t>(id);
      if (id >= 0 && place < facts.pieces.size() && facts.pieces[place].text == token.content) {
        token.id = id;
      }
      token.normalized = false;  // the library normalises, so there is no text of ours to look in
      const bool known = std::any_of(tokens.begin(), tokens.end(), [&](const AddedToken& other) {
        return other.content == token.content;
      });
      if (!known) tokens.push_back(std::move(token));
    }
    return tokens;
  }

  // The ids of a role: the named token's, else the model's own, else none.
  [[nodiscard]] std::vector<int32_t> Role(const std::optional<std::string>& token, int own) const {
    if (token) {
      if (const auto id = TokenToId(*token)) return {*id};
    }
    return own >= 0 ? std::vector<int32_t>{own} : std::vector<int32_t>{};
  }

  void AppendPieces(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> pieces;
    // It fails only for models that ExamineSentencePieceModel refuses.
    const auto encoded = processor_->Encode(text, &pieces);
    WEFT_CHECK(encoded.ok(), encoded.message());
    ids.insert(ids.end(), pieces.begin(), pieces.end());
  }

  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  SentencePieceFacts facts_;
  AddedTokens added_;
  std::unique_ptr<Decoder> decoder_;
  std::vector<int32_t> before_, after_;
};

}  // namespace

Result<std::unique_ptr<Tokenizer>> ReadSentencePiece(std::string_view bytes,
                                                     const TokenizerSettings& settings) {
  WEFT_TRY_ASSIGN(SentencePieceFacts facts, ExamineSentencePieceModel(bytes));
  auto processor = std::make_unique<sentencepiece::SentencePieceProcessor>();
  try {
    const auto loaded = processor->LoadFromSerializedProto(bytes);
    if (!loaded.ok()) {
      return InvalidArgument(Str("[tokenizer.model] libsentencepiece says: ", loaded.message()));
    }
  } catch (const std::exception& error) {
    return InvalidArgument(Str("[tokenizer.model] libsentencepiece says: ", error.what()));
  }
  if (static_cast<size_t>(processor->GetPieceSize()) != facts.pieces.size()) {
    return InvalidArgument(Str("[tokenizer.model] has ", facts.pieces.size(),
                               " pieces, libsentencepiece reads ", processor->GetPieceSize()));
  }
  return std::unique_ptr<Tokenizer>(
      std::make_unique<SentencePieceTokenizer>(std::move(processor), std::move(facts), settings));
}

}  // namespace weft
