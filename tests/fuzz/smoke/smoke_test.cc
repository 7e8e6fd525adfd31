// Every fuzz target over its seeds, over what fuzzing has found before (corpus/), and over some
// thousand mutations that are the same on every machine. No fuzzer is needed for it.

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <gtest/gtest.h>

#include "common/base/bytes.h"
#include "common/base/check.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/fuzz/smoke/mutate.h"

namespace weft::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr size_t kInputBytesMax = 16384;
constexpr int kMutations = 2000;

std::string NameOf(const ::testing::TestParamInfo<Target>& info) {
  return std::string(info.param.name);
}

std::vector<std::string> Corpus(std::string_view target) {
  std::vector<fs::path> paths;
  const fs::path folder = fs::path(WEFT_SOURCE_DIR) / "tests" / "fuzz" / "corpus" / target;
  std::error_code none;
  for (const auto& entry : fs::directory_iterator(folder, none)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> inputs;
  for (const fs::path& path : paths) {
    std::ostringstream bytes;
    bytes << std::ifstream(path, std::ios::binary).rdbuf();
    inputs.push_back(std::move(bytes).str());
  }
  return inputs;
}

// Runs one input; a property that does not hold shows the input, to be put into corpus/.
void RunOne(const Target& target, const std::string& input) {
  try {
    target.run(input);
  } catch (const CheckFailure& failure) {
    FAIL() << target.name << ": " << failure.what() << "\ninput (hex, " << input.size()
           << " bytes): " << Hex(AsBytes(input).first(std::min<size_t>(input.size(), 2048)));
  }
}

class FuzzSmokeTest : public ::testing::TestWithParam<Target> {};

TEST_P(FuzzSmokeTest, SeedsAndWhatWasFoundBeforeHoldTheirProperties) {
  const Target& target = GetParam();
  Seeds inputs = target.seeds();
  ASSERT_GE(inputs.size(), 3u) << target.name;
  EXPECT_EQ(std::set(inputs.begin(), inputs.end()).size(), inputs.size()) << "a seed twice";
  for (std::string& input : Corpus(target.name)) inputs.push_back(std::move(input));
  inputs.insert(inputs.end(), {"", std::string(1, '\0'), std::string(64, '\xFF'), "{}", "[]"});
  for (const std::string& input : inputs) {
    RunOne(target, input);
    for (const size_t length : {input.size() / 2, input.size() - std::min<size_t>(input.size(), 1)})
      RunOne(target, input.substr(0, length));
    if (HasFatalFailure()) return;
  }
}

// A fixed sequence; how far it is followed is bounded by time on slow machines and under
// sanitizers. WEFT_FUZZ_SECONDS follows it for longer.
TEST_P(FuzzSmokeTest, MutationsOfTheSeedsHoldTheirProperties) {
  const Target& target = GetParam();
  const Seeds seeds = target.seeds();
  RandomStream random = RandomStream::Derive(1, {"fuzz", target.name});
  const auto start = std::chrono::steady_clock::now();
  const char* seconds = std::getenv("WEFT_FUZZ_SECONDS");
  const std::chrono::duration<double> longest(seconds != nullptr ? std::atof(seconds) : 2.0);
  for (int turn = 0; seconds != nullptr || turn < kMutations; ++turn) {
    if (std::chrono::steady_clock::now() - start > longest) break;
    const std::string& seed = seeds[random.Below(seeds.size())];
    RunOne(target,
           Mutated(seed, seeds[random.Below(seeds.size())], target.words, kInputBytesMax, random));
    if (HasFatalFailure()) return;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, FuzzSmokeTest,
                         ::testing::ValuesIn(Targets().begin(), Targets().end()), NameOf);

TEST(MutateTest, TheSameStreamGivesTheSameInputsAndMostOfThemDiffer) {
  const std::vector<std::string_view> words = {"word"};
  RandomStream once(3), again(3);
  std::set<std::string> seen;
  for (int i = 0; i < 500; ++i) {
    const std::string a = Mutated("{\"a\": [1, 2]}", "other text", words, 40, once);
    EXPECT_EQ(a, Mutated("{\"a\": [1, 2]}", "other text", words, 40, again));
    EXPECT_LE(a.size(), 40u);
    seen.insert(a);
  }
  EXPECT_GT(seen.size(), 400u);
}

TEST(PartsTest, AnInputHasExactlyThePartsAskedFor) {
  using Views = std::vector<std::string_view>;
  EXPECT_EQ(Parts("a\xFF"
                  "b\xFF"
                  "c",
                  2),
            (Views{"a",
                   "b\xFF"
                   "c"}));
  EXPECT_EQ(Parts("a", 3), (Views{"a", "", ""}));
  EXPECT_EQ(Parts("", 1), (Views{""}));
  EXPECT_EQ(Parts(Joined({"x", "", "z"}), 3), (Views{"x", "", "z"}));
}

}  // namespace
}  // namespace weft::fuzz
