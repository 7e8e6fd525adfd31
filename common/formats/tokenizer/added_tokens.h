#pragma once
// AddedTokens: tokens that are found in the text itself, before the model sees it: special ones
// (<|im_start|>) and words added to a vocabulary. Constant after Build; any thread.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/formats/tokenizer/normalizer.h"
#include "common/formats/tokenizer/regex.h"

namespace weft {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool special = false;      // left out by Decode(…, skip_special)
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool single_word = false;  // only where no word character touches it
  bool normalized = false;   // looked for after normalisation
};

/// A stretch of text: an added token, or text for the model (id −1).
struct TokenOrText {
  int32_t id = -1;
  TextRange range;
};

class AddedTokens {
 public:
  AddedTokens() = default;
  /// `normalizer` (or null) is applied to the tokens that are looked for in normalised text.
  AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer);

  /// Cuts `text` at the tokens that are looked for before (`normalized` false) or after
  /// normalisation. Of tokens that start at the same place the longest counts.
  [[nodiscard]] std::vector<TokenOrText> Split(std::string_view text, bool normalized) const;

  /// The token with that id, or null.
  [[nodiscard]] const AddedToken* Find(int32_t id) const;
  [[nodiscard]] const AddedToken* Find(std::string_view content) const;
  /// One more than the largest id; 0 without tokens.
  [[nodiscard]] int32_t id_end() const { return id_end_; }

 private:
  // A prefix tree over bytes; node 0 is the root.
  struct Node {
    std::vector<std::pair<uint8_t, size_t>> children;
    size_t token = kNone;
  };
  using Tree = std::vector<Node>;
  static constexpr size_t kNone = static_cast<size_t>(-1);

  static void Insert(Tree& tree, std::string_view text, size_t token);
  /// The longest token at `at`, and where it ends.
  [[nodiscard]] static size_t Longest(const Tree& tree, std::string_view text, size_t at,
                                      size_t& end);

  std::vector<AddedToken> tokens_;
  std::unordered_map<int32_t, size_t> by_id_;
  std::unordered_map<std::string, size_t> by_content_;
  Tree raw_ = Tree(1);
  Tree normalized_ = Tree(1);
  int32_t id_end_ = 0;
};

}  // namespace weft
