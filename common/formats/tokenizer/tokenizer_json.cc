// tokenizer.json: added tokens → normaliser → added tokens → pre-tokenizer → model →
// post-processor, and the decoder back.

#include <algorithm>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/added_tokens.h"
#include "common/formats/tokenizer/decoder.h"
#include "common/formats/tokenizer/normalizer.h"
#include "common/formats/tokenizer/post_processor.h"
#include "common/formats/tokenizer/pre_tokenizer.h"
#include "common/formats/tokenizer/token_model.h"
#include "common/formats/tokenizer/vocabulary_files.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

struct Components {
  std::unique_ptr<Normalizer> normalizer;       // null: none
  std::unique_ptr<PreTokenizer> pre_tokenizer;  // null: the whole text is one word
  std::unique_ptr<TokenModel> model;
  std::unique_ptr<Decoder> decoder;  // null: tokens joined by blanks
  PostProcessor post_processor;
  AddedTokens added;
};

class JsonTokenizer final : public Tokenizer {
 public:
  explicit JsonTokenizer(Components parts) : parts_(std::move(parts)) {}

  [[nodiscard]] std::vector<int32_t> Encode(std::string_view text, bool special) const override {
    std::vector<int32_t> ids;
    const PostProcessor& wrap = parts_.post_processor;
    if (special) ids = wrap.before;
    if (IsValidUtf8(text)) {
      EncodeText(text, ids);
    } else {
      EncodeText(ReplaceBadUtf8(text), ids);
    }
    if (special) ids.insert(ids.end(), wrap.after.begin(), wrap.after.end());
    return ids;
  }

  [[nodiscard]] Result<TypedIds> JoinPair(std::span<const int32_t> first,
                                          std::span<const int32_t> second) const override {
    if (parts_.post_processor.pair.empty()) return Tokenizer::JoinPair(first, second);
    TypedIds out;
    for (const PairPiece& piece : parts_.post_processor.pair) {
      const std::span<const int32_t> ids = piece.source == PairPiece::Source::kFirst    ? first
                                           : piece.source == PairPiece::Source::kSecond ? second
                                                                                        : piece.ids;
      out.ids.insert(out.ids.end(), ids.begin(), ids.end());
      out.types.resize(out.ids.size(), piece.type);
    }
    return out;
  }

  [[nodiscard]] std::string Decode(std::span<const int32_t> ids, bool skip_special) const override {
    std::vector<std::string> pieces;
    pieces.reserve(ids.size());
    for (const int32_t id : ids) {
      const AddedToken* added = parts_.added.Find(id);
      if (added != nullptr) {
        if (!(skip_special && added->special)) pieces.push_back(added->content);
      } else if (const auto token = parts_.model->vocabulary().Token(id)) {
        pieces.emplace_back(*token);
      }
    }
    if (parts_.decoder) parts_.decoder->Apply(pieces);
    std::string text;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i > 0 && !parts_.decoder) text += ' ';
      text += pieces[i];
    }
    return ReplaceBadUtf8(text);
  }

  [[nodiscard]] std::string IdToToken(int32_t id) const override {
    if (const AddedToken* added = parts_.added.Find(id)) return added->content;
    return std::string(parts_.model->vocabulary().Token(id).value_or(""));
  }

  [[nodiscard]] std::optional<int32_t> TokenToId(std::string_view token) const override {
    if (const AddedToken* added = parts_.added.Find(token)) return added->id;
    return parts_.model->vocabulary().Find(token);
  }

  [[nodiscard]] int32_t vocab_size() const override {
    return std::max(parts_.model->vocabulary().id_end(), parts_.added.id_end());
  }

 private:
  void EncodeText(std::string_view text, std::vector<int32_t>& ids) const {
    for (const TokenOrText& outer : parts_.added.Split(text, /*normalized=*/false)) {
      if (outer.id >= 0) {
        ids.push_back(outer.id);
        continue;
      }
      std::string part(text.substr(outer.range.begin, outer.range.end - outer.range.begin));
      if (parts_.normalizer) parts_.normalizer->Apply(part);
      for (const TokenOrText& inner : parts_.added.Split(part, /*normalized=*/true)) {
        if (inner.id >= 0) {
          ids.push_back(inner.id);
          continue;
        }
        const size_t length = inner.range.end - inner.range.begin;
        const bool at_start = outer.range.begin == 0 && inner.range.begin == 0;
        EncodeWords({part.substr(inner.range.begin, length), {{{0, length}, at_start}}}, ids);
      }
    }
  }

  void EncodeWords(Words words, std::vector<int32_t>& ids) const {
    if (parts_.pre_tokenizer) parts_.pre_tokenizer->Apply(words);
    const std::string_view text = words.text;
    for (const Words::Word& word : words.list) {
      parts_.model->Tokenize(text.substr(word.range.begin, word.range.end - word.range.begin), ids);
    }
  }

  Components parts_;
};

// The file's added tokens, then the folder's. A token that the model's vocabulary holds keeps its
// id there.
Result<std::vector<AddedToken>> ReadAdded(const JsonView& root, const TokenizerSettings& settings,
                                          const Vocabulary& vocabulary) {
  std::vector<AddedToken> tokens;
  std::unordered_map<std::string, size_t> place;
  const auto add = [&](AddedToken token) {
    if (token.content.empty() || !place.emplace(token.content, tokens.size()).second) return;
    token.id = vocabulary.Find(token.content).value_or(token.id);
    tokens.push_back(std::move(token));
  };
  if (const auto list = root.Find("added_tokens")) {
    WEFT_TRY_ASSIGN(const std::vector<JsonView> items, list->Items());
    for (const JsonView& item : items) {
      WEFT_TRY_ASSIGN(const JsonView member, item.At("id"));
      WEFT_TRY_ASSIGN(const int32_t id, member.Count(limits::kTokenIdMax));
      WEFT_TRY_ASSIGN(AddedToken token, ReadAddedToken(item, id));
      add(std::move(token));
    }
  }
  for (const AddedToken& token : settings.added) add(token);
  for (const std::string& content : settings.special_tokens) {
    if (const auto id = vocabulary.Find(content)) {
      add({.content = content, .id = *id, .special = true});
    }
  }
  // What has a role is special, whatever its entry says.
  for (const std::string& content : settings.special_tokens) {
    if (const auto found = place.find(content); found != place.end()) {
      tokens[found->second].special = true;
    }
  }
  return tokens;
}

}  // namespace

Result<std::unique_ptr<Tokenizer>> ReadTokenizerJson(std::string_view text,
                                                     const TokenizerSettings& settings) {
  WEFT_TRY_ASSIGN(const JsonDocument document, JsonDocument::Parse(text, "tokenizer.json"));
  const JsonView root = document.root();
  Components parts;
  WEFT_TRY_ASSIGN(const JsonView model, root.At("model"));
  WEFT_TRY_ASSIGN(parts.model, ReadTokenModel(model));
  if (const auto json = root.Find("normalizer")) {
    WEFT_TRY_ASSIGN(parts.normalizer, ReadNormalizer(*json));
  }
  if (const auto json = root.Find("pre_tokenizer")) {
    WEFT_TRY_ASSIGN(parts.pre_tokenizer, ReadPreTokenizer(*json));
  }
  if (const auto json = root.Find("post_processor")) {
    WEFT_TRY_ASSIGN(parts.post_processor, ReadPostProcessor(*json));
  }
  if (const auto json = root.Find("decoder")) {
    WEFT_TRY_ASSIGN(parts.decoder, ReadDecoder(*json));
  }
  WEFT_TRY_ASSIGN(std::vector<AddedToken> added,
                  ReadAdded(root, settings, parts.model->vocabulary()));
  parts.added = AddedTokens(std::move(added), parts.normalizer.get());
  std::vector<std::vector<int32_t>> added_ids = {parts.post_processor.before,
                                                 parts.post_processor.after};
  for (const PairPiece& piece : parts.post_processor.pair) added_ids.push_back(piece.ids);
  auto tokenizer = std::make_unique<JsonTokenizer>(std::move(parts));
  for (const auto& ids : added_ids) {
    for (const int32_t id : ids) {
      if (!tokenizer->IdToToken(id).empty()) continue;
      return root.Error(
          Str("post_processor adds id ", id, ", which no token of the vocabulary has"));
    }
  }
  return std::unique_ptr<Tokenizer>(std::move(tokenizer));
}

}  // namespace weft
