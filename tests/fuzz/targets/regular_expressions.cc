// A pattern and a text, for both readers of regular expressions: matches lie in the text, in order,
// on whole characters; a whole match is a match.

#include "common/base/check.h"
#include "common/formats/path_regex.h"
#include "common/formats/tokenizer/regex.h"
#include "common/formats/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 2);
  const std::string pattern = ReplaceBadUtf8(parts[0]);
  const std::string text = ReplaceBadUtf8(parts[1].substr(0, 200));
  if (const Result<PathRegex> regex = PathRegex::Compile(pattern); regex.ok()) {
    const Result<bool> whole = regex->FullMatch(text);
    const Result<bool> start = regex->MatchStart(text);
    if (whole.ok() && start.ok()) WEFT_CHECK(!*whole || *start, pattern);
    const auto group = regex->MatchGroup(text, "idx");
    if (group.ok() && *group) WEFT_CHECK(text.find(**group) != std::string::npos, pattern);
  }
  if (const Result<Regex> regex = Regex::Compile(pattern); regex.ok()) {
    std::vector<TextRange> matches;
    regex->FindAll(text, matches);
    size_t done = 0;
    for (const TextRange& match : matches) {
      WEFT_CHECK(match.begin >= done && match.begin < match.end && match.end <= text.size());
      WEFT_CHECK(IsValidUtf8(std::string_view(text).substr(match.begin, match.end - match.begin)));
      done = match.end;
    }
  }
}

Seeds MakeSeeds() {
  return {
      Joined({R"('s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)", "it's 42 é  日本 "}),
      Joined({R"((?i:'s|'t)|[^\r\n\p{L}]?\p{L}+|\p{N}{1,3}|\s*[\r\n]+)", "A's\r\n 1234"}),
      Joined({R"(.*\.layers\.(?P<idx>\d+)\..*_proj)", "model.layers.12.self_attn.q_proj"}),
      Joined({R"((a+)+$|(?:(a*)*)*b)", "aaaaaaaaaaaaaaaaaaaaaa!"}),
      Joined({R"([[:alpha:]\w]\h(?m:.)x{1,2}?\K|)", "ab\nf xx"}),
      Joined({R"((?<=é)\S)", "éa"})};
}

}  // namespace

Target RegularExpressions() {
  return {"regular_expressions",
          Run,
          MakeSeeds,
          {"(?", "(*", "[^", "\\p{", "{,3}", "\\K", "\\W", "&&", "[:", ")+", "\\Q", "\\g{1}"}};
}

}  // namespace weft::fuzz
