#include "common/formats/path_regex.h"

#include <string>

#include <gtest/gtest.h>

namespace weft {
namespace {

PathRegex Make(std::string_view pattern) {
  Result<PathRegex> regex = PathRegex::Compile(pattern);
  EXPECT_TRUE(regex.ok()) << regex.status();
  return std::move(regex).value();
}

TEST(PathRegexTest, FullMatchWantsTheWholePath) {
  const PathRegex regex = Make(R"(.*\.(q|v)_proj)");
  EXPECT_TRUE(*regex.FullMatch("model.layers.0.self_attn.q_proj"));
  EXPECT_FALSE(*regex.FullMatch("model.layers.0.self_attn.q_proj.lora_A"));
  EXPECT_FALSE(*regex.FullMatch("q_proj"));
}

TEST(PathRegexTest, FullMatchBacktracksToTheEndLikePython) {
  EXPECT_TRUE(*Make("a|ab").FullMatch("ab"));
  EXPECT_FALSE(*Make("a|ab").FullMatch("abc"));
}

TEST(PathRegexTest, MatchStartIsAnchoredAtTheStartOnly) {
  const PathRegex regex = Make("model");
  EXPECT_TRUE(*regex.MatchStart("model.layers"));
  EXPECT_FALSE(*regex.MatchStart("base_model"));
}

TEST(PathRegexTest, PythonsNamedGroupsAreRead) {
  const PathRegex regex = Make(R"(.*?\.[^.]*\.(?P<idx>\d+)\.)");
  EXPECT_EQ(**regex.MatchGroup("model.layers.12.experts.3.up", "idx"), "12");
  EXPECT_FALSE(regex.MatchGroup("lm_head", "idx")->has_value());
}

TEST(PathRegexTest, EmptyPatternMatchesTheEmptyPathOnly) {
  EXPECT_TRUE(*Make("").FullMatch(""));
  EXPECT_FALSE(*Make("").FullMatch("a"));
}

TEST(PathRegexTest, WrongPatternIsNamedWithItsPlace) {
  const Result<PathRegex> regex = PathRegex::Compile("layers.(q");
  ASSERT_FALSE(regex.ok());
  EXPECT_EQ(regex.status().code(), Code::kInvalidArgument);
  EXPECT_NE(regex.status().message().find("\"layers.(q\" is wrong at offset 9"), std::string::npos)
      << regex.status();
}

TEST(PathRegexTest, HostilePatternEndsAtTheLimitOfSteps) {
  const PathRegex regex = Make("(a*)*(a*)*(a*)*b");
  const Result<bool> matched = regex.FullMatch(std::string(200, 'a') + "c");
  if (matched.ok()) {
    EXPECT_FALSE(*matched);  // PCRE2 may see that the b is missing
  } else {
    EXPECT_EQ(matched.status().code(), Code::kResourceExhausted);
  }
  const Result<bool> costly = Make("(?:a|a)*[bc]d").FullMatch(std::string(60, 'a') + "bcd");
  ASSERT_FALSE(costly.ok());
  EXPECT_EQ(costly.status().code(), Code::kResourceExhausted);
}

}  // namespace
}  // namespace weft
