#include "common/formats/tokenizer/added_tokens.h"

#include <algorithm>

#include "common/formats/tokenizer/unicode.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

// The code point that ends before `at`, which is not 0.
char32_t CodePointBefore(std::string_view text, size_t at, size_t& begin) {
  begin = at - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  size_t position = begin;
  return NextCodePoint(text, position);
}

bool WordEndsAt(std::string_view text, size_t at) {
  size_t begin = 0;
  return at > 0 && IsWordCharacter(CodePointBefore(text, at, begin));
}

bool WordStartsAt(std::string_view text, size_t at) {
  return at < text.size() && IsWordCharacter(NextCodePoint(text, at));
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens, const Normalizer* normalizer)
    : tokens_(std::move(tokens)) {
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const AddedToken& token = tokens_[i];
    by_id_.insert_or_assign(token.id, i);
    by_content_.insert_or_assign(token.content, i);
    id_end_ = std::max(id_end_, token.id + 1);
    std::string text = token.content;
    if (token.normalized && normalizer != nullptr) normalizer->Apply(text);
    if (!text.empty()) Insert(token.normalized ? normalized_ : raw_, text, i);
  }
}

void AddedTokens::Insert(Tree& tree, std::string_view text, size_t token) {
  size_t node = 0;
  for (const char c : text) {
    const auto byte = static_cast<uint8_t>(c);
    auto& children = tree[node].children;
    const auto place =
        std::lower_bound(children.begin(), children.end(), std::pair{byte, size_t{0}});
    if (place != children.end() && place->first == byte) {
      node = place->second;
      continue;
    }
    children.insert(place, {byte, tree.size()});
    node = tree.size();
    tree.emplace_back();
  }
  tree[node].token = token;
}

size_t AddedTokens::Longest(const Tree& tree, std::string_view text, size_t at, size_t& end) {
  size_t found = kNone;
  size_t node = 0;
  while (at < text.size()) {
    const auto byte = static_cast<uint8_t>(text[at]);
    const auto& children = tree[node].children;
    const auto place =
        std::lower_bound(children.begin(), children.end(), std::pair{byte, size_t{0}});
    if (place == children.end() || place->first != byte) break;
    node = place->second;
    ++at;
    if (tree[node].token != kNone) {
      found = tree[node].token;
      end = at;
    }
  }
  return found;
}

std::vector<TokenOrText> AddedTokens::Split(std::string_view text, bool normalized) const {
  const Tree& tree = normalized ? normalized_ : raw_;
  std::vector<TokenOrText> out;
  size_t done = 0;
  for (size_t at = tree[0].children.empty() ? text.size() : 0; at < text.size();) {
    size_t end = at;
    const size_t found = Longest(tree, text, at, end);
    if (found == kNone) {
      ++at;
      continue;
    }
    const AddedToken& token = tokens_[found];
    size_t begin = at;
    at = end;  // also where the token is refused: its text is not looked at again
    if (token.single_word && (WordEndsAt(text, begin) || WordStartsAt(text, end))) continue;
    if (token.lstrip) {
      for (size_t before = 0; begin > done && IsWhitespace(CodePointBefore(text, begin, before));) {
        begin = before;
      }
    }
    if (token.rstrip) {
      for (size_t after = end; after < text.size() && IsWhitespace(NextCodePoint(text, after));) {
        end = after;
      }
      at = end;
    }
    if (begin > done) out.push_back({-1, {done, begin}});
    out.push_back({token.id, {begin, end}});
    done = end;
  }
  if (done < text.size()) out.push_back({-1, {done, text.size()}});
  return out;
}

const AddedToken* AddedTokens::Find(int32_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &tokens_[found->second];
}

const AddedToken* AddedTokens::Find(std::string_view content) const {
  const auto found = by_content_.find(std::string(content));
  return found == by_content_.end() ? nullptr : &tokens_[found->second];
}

}  // namespace weft
