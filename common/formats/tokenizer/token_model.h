#pragma once
// TokenModel: the "model" of tokenizer.json: one word → ids, and the vocabulary. Constant; any
// thread.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "common/formats/tokenizer/json_view.h"

namespace weft {

/// Tokens and ids, both ways. Ids may have gaps.
class Vocabulary {
 public:
  /// Two tokens with one id are an error. `where` is the JSON that errors point to.
  [[nodiscard]] static Result<Vocabulary> Make(
      const std::vector<std::pair<std::string_view, int32_t>>& entries, const JsonView& where);

  [[nodiscard]] std::optional<int32_t> Find(std::string_view token) const;
  /// Nothing for an id that has no token.
  [[nodiscard]] std::optional<std::string_view> Token(int32_t id) const;
  /// One more than the largest id.
  [[nodiscard]] int32_t id_end() const { return static_cast<int32_t>(tokens_.size()); }

 private:
  // A deque, because its strings do not move: the views below point into it.
  std::deque<std::string> text_;
  std::unordered_map<std::string_view, int32_t> ids_;
  std::vector<std::optional<std::string_view>> tokens_;
};

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  /// Appends the ids of one word, which is valid UTF-8 and not empty.
  virtual void Tokenize(std::string_view word, std::vector<int32_t>& ids) const = 0;
  [[nodiscard]] virtual const Vocabulary& vocabulary() const = 0;
};

/// Byte-pair encoding (Sennrich et al. 2016), byte-level or with byte fallback.
[[nodiscard]] Result<std::unique_ptr<TokenModel>> ReadBpe(const JsonView& json);

/// Longest pieces from the left (BERT's). The unknown token must be in the vocabulary.
[[nodiscard]] Result<std::unique_ptr<TokenModel>> ReadWordPiece(const JsonView& json);

/// The model of that type. Unknown types are errors that name them.
[[nodiscard]] Result<std::unique_ptr<TokenModel>> ReadTokenModel(const JsonView& json);

}  // namespace weft
