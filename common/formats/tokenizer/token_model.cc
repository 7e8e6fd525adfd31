#include "common/formats/tokenizer/token_model.h"

#include <algorithm>

#include "common/base/str.h"

namespace weft {

Result<Vocabulary> Vocabulary::Make(
    const std::vector<std::pair<std::string_view, int32_t>>& entries, const JsonView& where) {
  Vocabulary vocabulary;
  int32_t last = -1;
  for (const auto& [token, id] : entries) last = std::max(last, id);
  vocabulary.tokens_.resize(static_cast<size_t>(last) + 1);
  vocabulary.ids_.reserve(entries.size());
  for (const auto& [token, id] : entries) {
    auto& slot = vocabulary.tokens_[static_cast<size_t>(id)];
    if (slot) {
      return where.Error(Str("tokens \"", *slot, "\" and \"", token, "\" have the same id ", id));
    }
    const std::string& kept = vocabulary.text_.emplace_back(token);
    slot = kept;
    vocabulary.ids_.emplace(kept, id);
  }
  return vocabulary;
}

std::optional<int32_t> Vocabulary::Find(std::string_view token) const {
  const auto found = ids_.find(token);
  if (found == ids_.end()) return std::nullopt;
  return found->second;
}

std::optional<std::string_view> Vocabulary::Token(int32_t id) const {
  if (id < 0 || id >= id_end()) return std::nullopt;
  return tokens_[static_cast<size_t>(id)];
}

Result<std::unique_ptr<TokenModel>> ReadTokenModel(const JsonView& json) {
  const auto member = json.Find("type");
  if (!member) {
    // Files of tokenizers before 0.8 name no type; merges are only in BPE's.
    if (json.Find("merges")) return ReadBpe(json);
    if (json.Find("max_input_chars_per_word")) return ReadWordPiece(json);
    return json.Error("the model has no \"type\" and no \"merges\"");
  }
  WEFT_TRY_ASSIGN(const std::string type, member->String());
  if (type == "BPE") return ReadBpe(json);
  if (type == "WordPiece") return ReadWordPiece(json);
  return member->Error(Str("unknown model \"", type, "\"; known are BPE, WordPiece"));
}

}  // namespace weft
