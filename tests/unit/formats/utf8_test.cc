// UTF-8 against the tables of the Unicode Standard, and against a second, slower reading of them.

#include "common/formats/utf8.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/random.h"

namespace weft {
namespace {

// A well-formed sequence's code point by the definition of UTF-8 (decode, then ask whether its
// shortest form is what was there); −1 for anything else. `length` of the sequence tried.
int32_t DecodeByDefinition(std::string_view text, size_t length) {
  if (text.size() < length) return -1;
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  constexpr uint8_t kLead[] = {0, 0x00, 0xC0, 0xE0, 0xF0};
  constexpr uint8_t kLeadMask[] = {0, 0x80, 0xE0, 0xF0, 0xF8};
  if ((byte(0) & kLeadMask[length]) != kLead[length]) return -1;
  int32_t code = byte(0) & static_cast<uint8_t>(~kLeadMask[length]);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return -1;
    code = (code << 6) | (byte(i) & 0x3F);
  }
  constexpr int32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kLeast[length] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return -1;
  return code;
}

bool ValidByDefinition(std::string_view text) {
  while (!text.empty()) {
    size_t taken = 0;
    for (size_t length = 1; length <= 4 && taken == 0; ++length) {
      if (DecodeByDefinition(text, length) >= 0) taken = length;
    }
    if (taken == 0) return false;
    text.remove_prefix(taken);
  }
  return true;
}

TEST(Utf8Test, EveryCodePointIsWrittenAndReadBack) {
  for (char32_t code = 0; code <= 0x10FFFF; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string text;
    AppendCodePoint(code, text);
    ASSERT_TRUE(IsValidUtf8(text)) << std::hex << static_cast<uint32_t>(code);
    size_t at = 0;
    ASSERT_EQ(NextCodePoint(text, at), code);
    ASSERT_EQ(at, text.size());
    ASSERT_EQ(DecodeByDefinition(text, text.size()), static_cast<int32_t>(code));
  }
}

TEST(Utf8Test, SurrogatesOverlongFormsAndWhatLiesBeyondUnicodeAreNoText) {
  for (const std::string_view bad :
       {"\x80", "\xBF", "\xC0\x80", "\xC1\xBF", "\xC2", "\xE0\x80\x80", "\xE0\x9F\xBF", "\xE0\xA0",
        "\xED\xA0\x80", "\xED\xBF\xBF", "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\xF0\x90\x80",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFE", "\xFF", "a\xFF", "\xC2\xC2\x80"}) {
    EXPECT_FALSE(IsValidUtf8(bad));
    EXPECT_FALSE(ValidByDefinition(bad)) << "the definition agrees";
  }
  for (const std::string_view good :
       {"", "\x7F", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEE\x80\x80",
        "\xEF\xBF\xBF", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    EXPECT_TRUE(IsValidUtf8(good));
  }
  EXPECT_TRUE(IsValidUtf8(std::string_view("a\0b", 3)));
}

TEST(Utf8Test, EveryPairOfBytesIsJudgedByTheDefinition) {
  for (int a = 0; a < 256; ++a) {
    for (int b = 0; b < 256; ++b) {
      const std::string text = {static_cast<char>(a), static_cast<char>(b)};
      ASSERT_EQ(IsValidUtf8(text), ValidByDefinition(text)) << a << " " << b;
    }
  }
}

// Lead bytes, continuations and edges, drawn so that most sequences are nearly right.
std::string NearlyUtf8(RandomStream& random) {
  static const std::vector<std::string> kPieces = {"a",        "\x80",
                                                   "\xBF",     "\xC2",
                                                   "\xDF\xBF", "\xE0",
                                                   "\xE0\xA0", "\xED",
                                                   "\xEF",     "\xED\x9F\xBF",
                                                   "\xF0\x90", "\xF0\x9F\x99",
                                                   "\xF4\x8F", "\xF4\x90",
                                                   "\xFF",     "é",
                                                   "日",       "\xF0\x9F\x99\x82"};
  std::string text;
  for (uint64_t n = random.Below(8); n > 0; --n) text += kPieces[random.Below(kPieces.size())];
  return text;
}

TEST(Utf8Test, RandomBytesAreJudgedByTheDefinitionAndMadeValid) {
  RandomStream random(5);
  for (int turn = 0; turn < 20000; ++turn) {
    const std::string text = NearlyUtf8(random);
    ASSERT_EQ(IsValidUtf8(text), ValidByDefinition(text)) << testing::PrintToString(text);
    const std::string made = ReplaceBadUtf8(text);
    ASSERT_TRUE(IsValidUtf8(made));
    if (IsValidUtf8(text)) {
      ASSERT_EQ(made, text) << "what is text stays as it is";
    } else {
      ASSERT_NE(made.find("\uFFFD"), std::string::npos);
    }
    ASSERT_EQ(ReplaceBadUtf8(made), made);
  }
}

// Unicode 15, table 3-8, and what Python's bytes.decode(errors="replace") gives.
TEST(Utf8Test, AMaximalPartOfASequenceBecomesOneReplacement) {
  const std::string r = "\uFFFD";
  const std::pair<std::string, std::string> cases[] = {
      {"\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64",
       "a" + r + r + r + "b" + r + "c" + r + r + "d"},
      {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", r + r + r + r + r + r + r + r + "A"},
      {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", r + r + r + r + r + "A" + r + r + "B"},
      {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", r + r + r + r + "A"},
      {"\xF0\x9F\x99", r},
      {"ab\xE6\x97", "ab" + r}};
  for (const auto& [bytes, wanted] : cases) EXPECT_EQ(ReplaceBadUtf8(bytes), wanted);
}

TEST(Utf8Test, WalkingATextGivesItsCodePointsInOrder) {
  const std::string text = "aé日\U0001F642\n";
  std::u32string points;
  for (size_t at = 0; at < text.size();) points += NextCodePoint(text, at);
  EXPECT_EQ(points, U"aé日\U0001F642\n");
}

}  // namespace
}  // namespace weft
