// Byte-pair encoding (Sennrich et al. 2016): a word starts as its characters; of all neighbours
// that the merges name, the pair with the lowest rank is merged, the leftmost of equals, until none
// is left.

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/tokenizer/merges.h"
#include "common/formats/tokenizer/token_model.h"
#include "common/formats/utf8.h"

namespace weft {
namespace {

constexpr int32_t kNone = -1;
constexpr size_t kShortWord = 48;           // up to here a plain scan beats the heap
constexpr char32_t kCharTableEnd = 0x2600;  // covers the byte alphabet and sentencepiece's U+2581

class Bpe final : public TokenModel {
 public:
  [[nodiscard]] static Result<std::unique_ptr<TokenModel>> Read(const JsonView& json);

  void Tokenize(std::string_view word, std::vector<int32_t>& ids) const override {
    if (ignore_merges_) {
      if (const auto whole = vocabulary_.Find(word)) {
        ids.push_back(*whole);
        return;
      }
    }
    const size_t begin = ids.size();
    Characters(word, ids);
    size_t done = begin;  // merged ids end here, characters still to merge start at `from`
    for (size_t from = begin; from < ids.size();) {
      const size_t to = CutAfter(ids, from);
      const size_t length = Merge(ids.data() + from, to - from);
      std::copy_n(ids.data() + from, length, ids.data() + done);
      done += length;
      from = to;
    }
    ids.resize(done);
  }

  [[nodiscard]] const Vocabulary& vocabulary() const override { return vocabulary_; }

 private:
  explicit Bpe(Vocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {}
  [[nodiscard]] Status ReadMerges(const JsonView& json);
  void FillTables();

  // The id of one character within a word, or kNone.
  [[nodiscard]] int32_t Character(char32_t character, std::string_view text, bool first,
                                  bool last) const {
    if (prefix_.empty() && suffix_.empty()) {
      if (character < kCharTableEnd) return characters_[character];
      return vocabulary_.Find(text).value_or(kNone);
    }
    const std::string piece = Str(first ? "" : prefix_, text, last ? suffix_ : "");
    return vocabulary_.Find(piece).value_or(kNone);
  }

  // The word's characters as ids; a character the vocabulary lacks as its bytes, as the unknown
  // token, or not at all.
  void Characters(std::string_view word, std::vector<int32_t>& ids) const {
    bool last_was_unknown = false;
    for (size_t at = 0; at < word.size();) {
      const size_t begin = at;
      const char32_t character = NextCodePoint(word, at);
      const std::string_view text = word.substr(begin, at - begin);
      const int32_t id = Character(character, text, begin == 0, at == word.size());
      if (id != kNone) {
        ids.push_back(id);
        last_was_unknown = false;
        continue;
      }
      if (AppendBytes(text, ids)) {
        last_was_unknown = false;
        continue;
      }
      if (unknown_ != kNone && !(fuse_unknown_ && last_was_unknown)) ids.push_back(unknown_);
      last_was_unknown = true;
    }
  }

  [[nodiscard]] bool AppendBytes(std::string_view text, std::vector<int32_t>& ids) const {
    if (!byte_fallback_) return false;
    for (const char c : text) {
      if (bytes_[static_cast<uint8_t>(c)] == kNone) return false;
    }
    for (const char c : text) ids.push_back(bytes_[static_cast<uint8_t>(c)]);
    return true;
  }

  // Where the stretch of characters from `from` ends: before the next blank after something else,
  // where no merge crosses such a place, else at the end.
  [[nodiscard]] size_t CutAfter(const std::vector<int32_t>& ids, size_t from) const {
    if (blank_ == kNone) return ids.size();
    for (size_t i = from + 1; i < ids.size(); ++i) {
      if (ids[i] == blank_ && ids[i - 1] != blank_) return i;
    }
    return ids.size();
  }

  // Merges ids[0, length) in place and returns how many are left.
  [[nodiscard]] size_t Merge(int32_t* ids, size_t length) const {
    if (length < 2) return length;
    return length <= kShortWord ? MergeShort(ids, length) : MergeLong(ids, length);
  }
  [[nodiscard]] size_t MergeShort(int32_t* word, size_t length) const;
  [[nodiscard]] size_t MergeLong(int32_t* ids, size_t length) const;

  Vocabulary vocabulary_;
  MergeTable merges_;
  std::vector<int32_t> characters_;   // code point → id, below kCharTableEnd
  std::array<int32_t, 256> bytes_{};  // byte → id of <0xNN>
  std::string prefix_;                // continuing_subword_prefix
  std::string suffix_;                // end_of_word_suffix
  int32_t unknown_ = kNone;
  int32_t blank_ = kNone;  // sentencepiece's blank, where it only ever starts a token
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
};

// merge[i] is what neighbours i and i + 1 would become.
size_t Bpe::MergeShort(int32_t* word, size_t length) const {
  std::array<MergeTable::Merge, kShortWord> merge;
  for (size_t i = 0; i + 1 < length; ++i) merge[i] = merges_.Find(word[i], word[i + 1]);
  while (length > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < length; ++i) {
      if (merge[i].rank < merge[best].rank) best = i;
    }
    if (merge[best].rank == MergeTable::kNever) break;
    word[best] = merge[best].into;
    std::copy(word + best + 2, word + length, word + best + 1);
    std::copy(merge.begin() + static_cast<std::ptrdiff_t>(best) + 1,
              merge.begin() + static_cast<std::ptrdiff_t>(length) - 1,
              merge.begin() + static_cast<std::ptrdiff_t>(best));
    --length;
    if (best > 0) merge[best - 1] = merges_.Find(word[best - 1], word[best]);
    if (best + 1 < length) merge[best] = merges_.Find(word[best], word[best + 1]);
  }
  return length;
}

// The same in O(n log n) for words without blanks to cut at: a linked list of symbols, and a heap
// of pairs in which outdated entries stay until they come up.
size_t Bpe::MergeLong(int32_t* ids, size_t count) const {
  struct Symbol {
    int32_t id;  // kNone once merged into its left neighbour
    uint32_t previous, next;
  };
  constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
  const auto length = static_cast<uint32_t>(count);
  std::vector<Symbol> symbols(length);
  for (uint32_t i = 0; i < length; ++i) {
    symbols[i] = {ids[i], i == 0 ? kEnd : i - 1, i + 1 == length ? kEnd : i + 1};
  }
  // Rank in the high half, place of the left symbol in the low half: the smallest is the next
  // merge.
  std::vector<uint64_t> storage;
  storage.reserve(length);
  std::priority_queue<uint64_t, std::vector<uint64_t>, std::greater<>> queue(std::greater<>(),
                                                                             std::move(storage));
  const auto push = [&](uint32_t left) {
    const uint32_t right = symbols[left].next;
    if (right == kEnd) return;
    const uint32_t rank = merges_.Find(symbols[left].id, symbols[right].id).rank;
    if (rank != MergeTable::kNever) queue.push((uint64_t{rank} << 32) | left);
  };
  for (uint32_t i = 0; i < length; ++i) push(i);
  while (!queue.empty()) {
    const auto rank = static_cast<uint32_t>(queue.top() >> 32);
    const auto left = static_cast<uint32_t>(queue.top());
    queue.pop();
    Symbol& symbol = symbols[left];
    if (symbol.id == kNone || symbol.next == kEnd) continue;
    Symbol& gone = symbols[symbol.next];
    const MergeTable::Merge merge = merges_.Find(symbol.id, gone.id);
    if (merge.rank != rank) continue;
    symbol.id = merge.into;
    gone.id = kNone;
    symbol.next = gone.next;
    if (gone.next != kEnd) symbols[gone.next].previous = left;
    push(left);
    if (symbol.previous != kEnd) push(symbol.previous);
  }
  size_t out = 0;
  for (uint32_t i = 0; i != kEnd; i = symbols[i].next) ids[out++] = symbols[i].id;
  return out;
}

Status Bpe::ReadMerges(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView list, json.At("merges"));
  WEFT_TRY_ASSIGN(const auto pairs, list.Pairs());
  merges_ = MergeTable(pairs.size());
  std::string joined;
  constexpr std::string_view kBlank = "\u2581";
  bool blank_only_starts = true;
  for (size_t rank = 0; rank < pairs.size(); ++rank) {
    const auto& [left, right] = pairs[rank];
    // The right half of a merge inside a word carries the prefix, the merged token does not carry
    // it twice.
    joined = left;
    joined += right.substr(right.starts_with(prefix_) ? prefix_.size() : 0);
    const auto left_id = vocabulary_.Find(left), right_id = vocabulary_.Find(right),
               into = vocabulary_.Find(joined);
    if (!left_id || !right_id || !into) {
      return list.Error(Str("merge ", rank, " (\"", left, "\" and \"", right, "\"): \"",
                            !left_id    ? left
                            : !right_id ? right
                                        : std::string_view(joined),
                            "\" is not in the vocabulary"));
    }
    // Runs of blanks may grow, but nothing else may take a blank in on its right.
    size_t blanks = 0;
    while (left.substr(blanks).starts_with(kBlank)) blanks += kBlank.size();
    blank_only_starts &= blanks == left.size() || !right.starts_with(kBlank);
    merges_.Insert(*left_id, *right_id, {static_cast<uint32_t>(rank), *into});
  }
  if (blank_only_starts) blank_ = vocabulary_.Find(kBlank).value_or(kNone);
  return OkStatus();
}

void Bpe::FillTables() {
  characters_.assign(kCharTableEnd, kNone);
  std::string text;
  for (char32_t c = 0; c < kCharTableEnd; ++c) {
    text.clear();
    AppendCodePoint(c, text);
    characters_[c] = vocabulary_.Find(text).value_or(kNone);
  }
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (size_t b = 0; b < 256; ++b) {
    bytes_[b] = vocabulary_.Find(Str("<0x", kHex[b / 16], kHex[b % 16], ">")).value_or(kNone);
  }
}

Result<std::unique_ptr<TokenModel>> Bpe::Read(const JsonView& json) {
  WEFT_TRY_ASSIGN(const JsonView tokens, json.At("vocab"));
  WEFT_TRY_ASSIGN(const auto entries, tokens.Counts(limits::kTokenIdMax));
  WEFT_TRY_ASSIGN(Vocabulary vocabulary, Vocabulary::Make(entries, tokens));
  std::unique_ptr<Bpe> bpe(new Bpe(std::move(vocabulary)));
  WEFT_TRY_ASSIGN(bpe->prefix_, json.StringOr("continuing_subword_prefix", ""));
  WEFT_TRY_ASSIGN(bpe->suffix_, json.StringOr("end_of_word_suffix", ""));
  WEFT_TRY_ASSIGN(bpe->fuse_unknown_, json.BoolOr("fuse_unk", false));
  WEFT_TRY_ASSIGN(bpe->byte_fallback_, json.BoolOr("byte_fallback", false));
  WEFT_TRY_ASSIGN(bpe->ignore_merges_, json.BoolOr("ignore_merges", false));
  if (const auto member = json.Find("unk_token")) {
    WEFT_TRY_ASSIGN(const std::string unknown, member->String());
    // Byte-level vocabularies often name one that only the added tokens hold: nothing is unknown to
    // them.
    bpe->unknown_ = bpe->vocabulary_.Find(unknown).value_or(kNone);
  }
  WEFT_TRY(bpe->ReadMerges(json));
  bpe->FillTables();
  return std::unique_ptr<TokenModel>(std::move(bpe));
}

}  // namespace

Result<std::unique_ptr<TokenModel>> ReadBpe(const JsonView& json) { return Bpe::Read(json); }

}  // namespace weft
