// WordPiece (Schuster, Nakajima 2012; BERT's): a word is cut from the left into the longest pieces
// of the vocabulary, those behind the first carrying a prefix ("##"). A word with a stretch that no
// piece begins is the unknown token as a whole.

#include <algorithm>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/token_model.h"

namespace weft {
namespace {

constexpr int32_t kWordCharactersMax = 1 << 16;

class WordPiece final : public TokenModel {
 public:
  [[nodiscard]] static Result<std::unique_ptr<TokenModel>> Read(const JsonView& json);

  void Tokenize(std::string_view word, std::vector<int32_t>& ids) const override {
    const size_t before = ids.size();
    if (Characters(word) > word_characters_max_ || !Pieces(word, ids)) {
      ids.resize(before);
      ids.push_back(unknown_);
    }
  }

  [[nodiscard]] const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  explicit WordPiece(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}

  static bool StartsCharacter(char byte) { return (static_cast<uint8_t>(byte) & 0xC0) != 0x80; }

  static size_t Characters(std::string_view word) {
    return static_cast<size_t>(std::count_if(word.begin(), word.end(), StartsCharacter));
  }

  // Appends the pieces; false where one is missing. No piece is longer than the longest token, so a
  // word costs its length times that, whatever the file allows a word to be.
  bool Pieces(std::string_view word, std::vector<int32_t>& ids) const {
    std::string candidate;
    for (size_t at = 0; at < word.size();) {
      candidate.assign(at == 0 ? "" : prefix_);
      const size_t prefix = candidate.size();
      candidate += word.substr(at, std::min(word.size() - at, longest_token_));
      std::optional<int32_t> id;
      while (candidate.size() > prefix) {
        const bool whole = at + candidate.size() - prefix == word.size() ||
                           StartsCharacter(word[at + candidate.size() - prefix]);
        if (whole) id = vocabulary_.Find(candidate);
        if (id) break;
        candidate.pop_back();
      }
      if (!id) return false;
      ids.push_back(*id);
      at += candidate.size() - prefix;
    }
    return true;
  }

  Vocabulary vocabulary_;
  std::string prefix_;
  size_t word_characters_max_ = 100;
  size_t longest_token_ = 0;  // in bytes
  int32_t unknown_ = 0;
};

Result<std::unique_ptr<TokenModel>> WordPiece::Read(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView tokens, json.At("vocab"));
  WEFT_TRY_ASSIGN(const auto entries, tokens.Counts(limits::kTokenIdMax));
  WEFT_TRY_ASSIGN(Vocabulary vocabulary, Vocabulary::Make(entries, tokens));
  std::unique_ptr<WordPiece> model(new WordPiece(std::move(vocabulary)));
  for (const auto& [token, id] : entries) {
    model->longest_token_ = std::max(model->longest_token_, token.size());
  }
  WEFT_TRY_ASSIGN(model->prefix_, json.StringOr("continuing_subword_prefix", "##"));
  if (const auto member = json.Find("max_input_chars_per_word")) {
    WEFT_TRY_ASSIGN(const int32_t most, member->Count(kWordCharactersMax));
    model->word_characters_max_ = static_cast<size_t>(most);
  }
  WEFT_TRY_ASSIGN(const std::string unknown, json.StringOr("unk_token", "[UNK]"));
  const auto id = model->vocabulary_.Find(unknown);
  if (!id) {
    return json.Error(
        Str("unk_token \"", unknown, "\" is not in the vocabulary; words without pieces need it"));
  }
  model->unknown_ = *id;
  return std::unique_ptr<TokenModel>(std::move(model));
}

}  // namespace

Result<std::unique_ptr<TokenModel>> ReadWordPiece(const JsonView& json) {
  return WordPiece::Read(json);
}

}  // namespace weft
