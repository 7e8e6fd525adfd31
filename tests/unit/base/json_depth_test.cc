#include "common/base/json_depth.h"

#include <string>

#include <gtest/gtest.h>

namespace weft {
namespace {

std::string Nested(int levels, char open = '[', char close = ']') {
  const auto count = static_cast<size_t>(levels);
  return std::string(count, open) + std::string(count, close);
}

TEST(JsonDepthTest, TheLimitItselfIsWithin) {
  for (const int limit : {0, 1, 2, 64}) {
    EXPECT_TRUE(JsonDepthWithin(Nested(limit), limit)) << limit;
    EXPECT_FALSE(JsonDepthWithin(Nested(limit + 1), limit)) << limit;
    EXPECT_FALSE(JsonDepthWithin(Nested(limit + 1, '{', '}'), limit)) << limit;
  }
  EXPECT_TRUE(JsonDepthWithin(Nested(limits::kJsonNestingMax)));
  EXPECT_FALSE(JsonDepthWithin(Nested(limits::kJsonNestingMax + 1)));
}

TEST(JsonDepthTest, ObjectsAndArraysCountTogether) {
  EXPECT_TRUE(JsonDepthWithin(R"({"a":[{"b":[]}]})", 4));
  EXPECT_FALSE(JsonDepthWithin(R"({"a":[{"b":[]}]})", 3));
}

TEST(JsonDepthTest, ManyShallowValuesAreNotDeep) {
  std::string wide = "[";
  for (int i = 0; i < 10000; ++i) wide += "[],{},";
  EXPECT_TRUE(JsonDepthWithin(wide + "[]]", 2));
}

TEST(JsonDepthTest, BracketsInStringsDoNotCountAndEscapedQuotesEndNone) {
  EXPECT_TRUE(JsonDepthWithin(R"(["[[[[[[{{{{"])", 1));
  EXPECT_TRUE(JsonDepthWithin(R"(["\"[[[["])", 1)) << "an escaped quote does not end the string";
  EXPECT_FALSE(JsonDepthWithin(R"(["\\"[[[[])", 1)) << "an escaped backslash does not escape";
  EXPECT_TRUE(JsonDepthWithin("[\"\xE6\x97\xA5[\"]", 1));
}

TEST(JsonDepthTest, TextThatIsNoJsonEndsTheScanToo) {
  EXPECT_TRUE(JsonDepthWithin("", 0));
  EXPECT_TRUE(JsonDepthWithin("]]]]]]", 0));
  EXPECT_TRUE(JsonDepthWithin("\"[[[[[", 0)) << "a string that never ends";
  EXPECT_TRUE(JsonDepthWithin("\"\\", 0)) << "a backslash as the last byte";
  EXPECT_FALSE(JsonDepthWithin(std::string(1'000'000, '[')));
}

}  // namespace
}  // namespace weft
