// The parts of a tokenizer against slow and obvious versions of themselves, on random texts.

#include <algorithm>
#include <map>
#include <optional>

#include "common/base/random.h"
#include "common/formats/tokenizer/added_tokens.h"
#include "common/formats/tokenizer/merges.h"
#include "common/formats/tokenizer/pre_tokenizer.h"
#include "common/formats/tokenizer/token_model.h"
#include "common/formats/tokenizer/unicode.h"
#include "common/formats/utf8.h"
#include "tests/unit/formats/tokenizer_fixture.h"

namespace weft {
namespace {

std::string RandomText(RandomStream& random, std::string_view letters, size_t most) {
  std::string text;
  for (uint64_t n = random.Below(most + 1); n > 0; --n)
    text += letters[random.Below(letters.size())];
  return text;
}

// ---- byte-pair encoding ----

struct Merge {
  std::string left, right;
};

// Sennrich et al. 2016 as they write it: of all neighbours the pair with the lowest rank, leftmost
// first, until there is none.
std::vector<std::string> MergedByDefinition(const std::string& word,
                                            const std::vector<Merge>& merges) {
  std::vector<std::string> symbols;
  for (const char c : word) symbols.emplace_back(1, c);
  while (true) {
    size_t best_rank = merges.size(), best_place = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      for (size_t rank = 0; rank < best_rank; ++rank) {
        if (merges[rank].left == symbols[i] && merges[rank].right == symbols[i + 1]) {
          best_rank = rank;
          best_place = i;
        }
      }
    }
    if (best_rank == merges.size()) return symbols;
    symbols[best_place] += symbols[best_place + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(best_place) + 1);
  }
}

// Random merges of tokens that exist, over the letters a to d, as the trainer would make them.
std::vector<Merge> RandomMerges(RandomStream& random, size_t count) {
  std::vector<std::string> tokens = {"a", "b", "c", "d"};
  std::vector<Merge> merges;
  while (merges.size() < count) {
    const std::string left = tokens[random.Below(tokens.size())];
    const std::string right = tokens[random.Below(tokens.size())];
    if (left.size() + right.size() > 7) continue;
    const bool there = std::any_of(merges.begin(), merges.end(), [&](const Merge& m) {
      return m.left + m.right == left + right;
    });
    if (there) continue;
    merges.push_back({left, right});
    tokens.push_back(left + right);
  }
  return merges;
}

std::unique_ptr<TokenModel> ModelOf(const std::vector<Merge>& merges) {
  Json vocab = {{"a", 0}, {"b", 1}, {"c", 2}, {"d", 3}};
  Json list = Json::array();
  for (const Merge& merge : merges) {
    vocab[merge.left + merge.right] = vocab.size();
    list.push_back({merge.left, merge.right});
  }
  const JsonDocument document = Parsed({{"type", "BPE"}, {"vocab", vocab}, {"merges", list}});
  auto model = ReadTokenModel(document.root());
  EXPECT_TRUE(model.ok()) << model.status();
  return std::move(model).value();
}

TEST(BpeModelTest, WordsOfEveryLengthMergeAsTheDefinitionSays) {
  RandomStream random(31);
  for (int vocabulary = 0; vocabulary < 25; ++vocabulary) {
    const std::vector<Merge> merges = RandomMerges(random, 3 + random.Below(20));
    const auto model = ModelOf(merges);
    for (int turn = 0; turn < 40; ++turn) {
      // Up to 48 characters are merged by scanning, longer words by a heap.
      const std::string word = RandomText(random, "abcd", turn % 4 == 0 ? 140 : 50);
      if (word.empty()) continue;
      Ids ids;
      model->Tokenize(word, ids);
      std::vector<std::string> tokens;
      for (const int32_t id : ids) tokens.emplace_back(*model->vocabulary().Token(id));
      ASSERT_EQ(tokens, MergedByDefinition(word, merges)) << word;
    }
  }
}

TEST(BpeModelTest, TokenizingAppendsAndKeepsWhatWasThere) {
  const auto model = ModelOf({{"a", "b"}});
  Ids ids = {77};
  model->Tokenize("ab", ids);
  model->Tokenize("ba", ids);
  EXPECT_EQ(ids, (Ids{77, 4, 1, 0}));
}

TEST(MergeTableTest, FindsWhatWasInsertedAndNothingElse) {
  RandomStream random(32);
  for (const size_t count : {size_t{0}, size_t{1}, size_t{7}, size_t{500}}) {
    MergeTable table(count);
    std::map<std::pair<int32_t, int32_t>, uint32_t> model;
    for (uint32_t rank = 0; rank < count; ++rank) {
      const auto left = static_cast<int32_t>(random.Below(30));
      const auto right = static_cast<int32_t>(random.Below(30));
      table.Insert(left, right, {rank, static_cast<int32_t>(rank) + 1000});
      model[{left, right}] = rank;  // a pair that comes again gets the later rank
    }
    for (int32_t left = 0; left < 32; ++left) {
      for (int32_t right = 0; right < 32; ++right) {
        const auto wanted = model.find({left, right});
        const MergeTable::Merge got = table.Find(left, right);
        ASSERT_EQ(got.rank, wanted == model.end() ? MergeTable::kNever : wanted->second);
        if (wanted != model.end()) {
          ASSERT_EQ(got.into, static_cast<int32_t>(got.rank) + 1000);
        }
      }
    }
    EXPECT_EQ(table.Find(-1, -1).rank, MergeTable::kNever) << "no id";
  }
}

// ---- the byte alphabet ----

TEST(ByteLevelTest, EveryByteHasACharacterOfItsOwnAndBack) {
  std::map<std::string, int> seen;
  for (int b = 0; b < 256; ++b) {
    const std::string text = ByteText(std::string(1, static_cast<char>(b)));
    EXPECT_TRUE(IsValidUtf8(text));
    EXPECT_TRUE(seen.emplace(text, b).second) << b;
    size_t at = 0;
    EXPECT_EQ(ByteOfCharacter(NextCodePoint(text, at)), b);
    EXPECT_EQ(at, text.size()) << "one character";
  }
  EXPECT_EQ(ByteText(" "), "Ġ");
  EXPECT_EQ(ByteText("\n"), "Ċ");
  EXPECT_EQ(ByteText("!~"), "!~") << "printable ones stand for themselves";
  for (const char32_t other : {U'\u0144', U' ', U'\n', U'日', U'\U0010FFFF'}) {
    EXPECT_EQ(ByteOfCharacter(other), std::nullopt) << static_cast<uint32_t>(other);
  }
}

// ---- splitting ----

constexpr SplitBehavior kBehaviors[] = {SplitBehavior::kRemoved, SplitBehavior::kIsolated,
                                        SplitBehavior::kMergedWithPrevious,
                                        SplitBehavior::kMergedWithNext, SplitBehavior::kContiguous};

std::vector<TextRange> RandomMatches(RandomStream& random, size_t size) {
  std::vector<TextRange> matches;
  for (size_t at = random.Below(3); at < size;) {
    const size_t end = std::min(size, at + 1 + random.Below(3));
    matches.push_back({at, end});
    at = end + random.Below(4);
  }
  return matches;
}

TEST(SplitPropertyTest, PartsCoverTheWordInOrderAndOnlyRemovedDropsAny) {
  RandomStream random(33);
  for (int turn = 0; turn < 3000; ++turn) {
    const size_t size = random.Below(20);
    const std::vector<TextRange> matches = RandomMatches(random, size);
    for (const bool invert : {false, true}) {
      std::vector<bool> is_match(size, invert);
      for (const TextRange& match : matches) {
        std::fill(is_match.begin() + static_cast<std::ptrdiff_t>(match.begin),
                  is_match.begin() + static_cast<std::ptrdiff_t>(match.end), !invert);
      }
      for (const SplitBehavior behavior : kBehaviors) {
        std::vector<TextRange> parts;
        SplitAt(size, matches, behavior, invert, parts);
        std::vector<bool> covered(size, false);
        size_t done = 0;
        for (const TextRange& part : parts) {
          ASSERT_LT(part.begin, part.end) << "no empty words";
          ASSERT_GE(part.begin, done);
          for (size_t i = part.begin; i < part.end; ++i) covered[i] = true;
          done = part.end;
        }
        for (size_t i = 0; i < size; ++i) {
          ASSERT_EQ(covered[i], behavior != SplitBehavior::kRemoved || !is_match[i]) << i;
        }
        if (behavior != SplitBehavior::kContiguous) continue;
        for (size_t i = 1; i < parts.size(); ++i) {
          ASSERT_NE(is_match[parts[i].begin], is_match[parts[i - 1].begin]) << "runs alternate";
        }
      }
    }
  }
}

TEST(SplitPropertyTest, NothingToSplitIsNothingOrTheWhole) {
  for (const SplitBehavior behavior : kBehaviors) {
    std::vector<TextRange> parts;
    SplitAt(0, {}, behavior, false, parts);
    EXPECT_TRUE(parts.empty());
    SplitAt(5, {}, behavior, false, parts);
    EXPECT_EQ(parts, (std::vector<TextRange>{{0, 5}}));
  }
}

// ---- added tokens ----

// At each place the longest token that stands there, from left to right.
std::vector<std::pair<int32_t, std::string>> FoundByDefinition(
    std::string_view text, const std::vector<AddedToken>& tokens) {
  std::vector<std::pair<int32_t, std::string>> out;
  std::string plain;
  const auto flush = [&] {
    if (!plain.empty()) out.emplace_back(-1, std::exchange(plain, ""));
  };
  while (!text.empty()) {
    const AddedToken* best = nullptr;
    for (const AddedToken& token : tokens) {
      if (text.starts_with(token.content) &&
          (best == nullptr || token.content.size() > best->content.size())) {
        best = &token;
      }
    }
    if (best == nullptr) {
      plain += text[0];
      text.remove_prefix(1);
      continue;
    }
    flush();
    out.emplace_back(best->id, best->content);
    text.remove_prefix(best->content.size());
  }
  flush();
  return out;
}

TEST(AddedTokensModelTest, TheLongestTokenAtEachPlaceIsFoundFromLeftToRight) {
  RandomStream random(34);
  for (int turn = 0; turn < 600; ++turn) {
    std::vector<AddedToken> tokens;
    for (uint64_t n = 1 + random.Below(5); n > 0; --n) {
      const std::string content = "<" + RandomText(random, "ab<", 3);
      const bool known = std::any_of(tokens.begin(), tokens.end(),
                                     [&](const AddedToken& t) { return t.content == content; });
      if (!known) tokens.push_back({.content = content, .id = static_cast<int32_t>(tokens.size())});
    }
    const std::string text = RandomText(random, "ab<<", 30);
    const AddedTokens added(tokens, nullptr);
    std::vector<std::pair<int32_t, std::string>> got;
    size_t done = 0;
    for (const TokenOrText& part : added.Split(text, false)) {
      ASSERT_EQ(part.range.begin, done) << "nothing is lost between parts";
      done = part.range.end;
      got.emplace_back(part.id, text.substr(part.range.begin, part.range.end - part.range.begin));
    }
    ASSERT_EQ(done, text.size());
    ASSERT_EQ(got, FoundByDefinition(text, tokens)) << text;
    for (const AddedToken& token : tokens) {
      EXPECT_EQ(added.Find(token.id)->content, token.content);
      EXPECT_EQ(added.Find(std::string_view(token.content))->id, token.id);
    }
    EXPECT_EQ(added.id_end(), static_cast<int32_t>(tokens.size()));
    EXPECT_EQ(added.Split(text, true).size(), text.empty() ? 0u : 1u)
        << "none of them is looked for after normalisation";
  }
}

// ---- the whole ----

TEST_F(TokenizerFolderTest, ByteLevelTextComesBackWhateverTheMerges) {
  RandomStream random(35);
  const auto tokenizer =
      Load(ByteLevelJson({{"h", "e"}, {" ", "t"}, {"\xE6", "\x97"}, {"l", "l"}}));
  ASSERT_TRUE(tokenizer);
  for (int turn = 0; turn < 500; ++turn) {
    std::string text;
    for (uint64_t n = random.Below(30); n > 0; --n) {
      constexpr char32_t kPoints[] = {U'h', U'e',  U'l',    U' ',  U'\n', U't',
                                      U'é', U'日', U'🙂', U'\0', U'\t'};
      AppendCodePoint(kPoints[random.Below(std::size(kPoints))], text);
    }
    const Ids ids = tokenizer->Encode(text, false);
    ASSERT_EQ(tokenizer->Decode(ids, false), text);
    for (const int32_t id : ids) ASSERT_LT(id, tokenizer->vocab_size());
  }
}

// ---- classes of characters ----

TEST(UnicodeTest, WhiteSpaceIsThePropertyWhiteSpace) {
  // PropList.txt, Unicode 15.
  const std::u32string spaces =
      U"\u0009\u000A\u000B\u000C\u000D\u0020\u0085\u00A0\u1680\u2000\u2001\u2002\u2003\u2004\u2005"
      U"\u2006\u2007\u2008\u2009\u200A\u2028\u2029\u202F\u205F\u3000";
  size_t found = 0;
  for (char32_t c = 0; c < 0x20000; ++c) found += IsWhitespace(c) ? 1 : 0;
  EXPECT_EQ(found, spaces.size());
  for (const char32_t c : spaces) EXPECT_TRUE(IsWhitespace(c)) << static_cast<uint32_t>(c);
  for (const char32_t c : {U'\u180E', U'\u200B', U'\uFEFF', U'\0', U'\u001C'}) {
    EXPECT_FALSE(IsWhitespace(c)) << static_cast<uint32_t>(c);
  }
}

TEST(UnicodeTest, ClassesOfKnownCharacters) {
  for (const char32_t c : std::u32string(U"09٣²½Ⅷ一")) {
    EXPECT_EQ(IsNumeric(c), c != U'一') << "a word for a number is a letter";
  }
  for (const char32_t c : std::u32string(U"!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")) {
    EXPECT_TRUE(IsPunctuation(c)) << static_cast<char>(c);
  }
  for (const char32_t c : std::u32string(U"«»…、。‘’")) EXPECT_TRUE(IsPunctuation(c));
  for (const char32_t c : std::u32string(U"a0 é€+\u0301")) {
    EXPECT_EQ(IsPunctuation(c), c == U'+') << static_cast<uint32_t>(c);
  }
  EXPECT_TRUE(IsMark(U'\u0301'));
  EXPECT_TRUE(IsMark(U'\u093E')) << "a spacing mark";
  EXPECT_FALSE(IsMark(U'é'));
  for (const char32_t c : std::u32string(U"aZ0_é日\u0301\u200D‿")) {
    EXPECT_TRUE(IsWordCharacter(c)) << static_cast<uint32_t>(c);
  }
  for (const char32_t c : std::u32string(U" -.²½€🙂")) {
    EXPECT_FALSE(IsWordCharacter(c)) << static_cast<uint32_t>(c);
  }
}

}  // namespace
}  // namespace weft
