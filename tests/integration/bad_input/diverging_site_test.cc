// A site whose local loss is no number any more: its round stops and is reported, the others go on.

#include <algorithm>
#include <sstream>

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::json;

/// The tiny federation for one round in which every site makes one pass at a learning rate that a
/// first step survives and a few do not: only the site with more than one batch diverges.
Ran OneRound(const TempFolder& temp, const std::vector<std::string>& more) {
  const auto example = std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny";
  const std::string row = "{\"prompt\":\"the pump\",\"completion\":\"is old\"}\n";
  const std::string one_batch = temp.Write("one.jsonl", row + row + row).string();
  std::vector<std::string> arguments = {(example / "run.toml").string(), "--json", "--workers",
                                        "1"};
  for (const std::string& set :
       {std::string("run.num-server-rounds=1"), std::string("train.local-steps=0"),
        std::string("train.local-epochs=1"), std::string("train.lr=1e13"),
        std::string("adapter.target-modules=gate_proj,up_proj,down_proj"),
        std::string("cohort.fraction-evaluate=0"), std::string("evaluate.data="),
        "client.harbour.data=" + one_batch, "client.hospital.data=" + one_batch}) {
    arguments.push_back("--set");
    arguments.push_back(set);
  }
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Execute("weft-sim", arguments);
}

TEST(DivergingSiteTest, ItsRoundStopsAndIsReportedAndTheOthersGoOn) {
  const TempFolder temp;
  const Ran ran = OneRound(temp, {"--set", "cohort.quorum=0.5"});
  ASSERT_TRUE(Succeeded(ran));
  EXPECT_EQ(Json::parse(ran.out)["rounds"], 1);
  const auto logged = [&](const std::vector<std::string>& words) {
    std::istringstream lines(ran.err);
    for (std::string line; std::getline(lines, line);) {
      if (std::all_of(words.begin(), words.end(), [&](const std::string& word) {
            return line.find(word) != std::string::npos;
          })) {
        return true;
      }
    }
    return false;
  };
  EXPECT_TRUE(logged({"[weaver]", "round failed here", "the loss is"})) << ran.err;
  EXPECT_TRUE(logged({"[aggregator]", "client=weaver", "the loss is"})) << ran.err;
  EXPECT_TRUE(logged({"[aggregator]", "round closed", "accepted=2", "of=3"})) << ran.err;
  EXPECT_TRUE(logged({"[harbour]", "update accepted"})) << ran.err;
  EXPECT_TRUE(logged({"[hospital]", "update accepted"})) << ran.err;
}

TEST(DivergingSiteTest, ARoundThatNeedsTheSiteFailsAndSaysWhy) {
  const TempFolder temp;
  const Ran ran = OneRound(temp, {"--set", "cohort.quorum=1", "--set", "cohort.round-retries=0"});
  EXPECT_TRUE(Refused(ran, {"missed its quorum of 3", "2 of 3 accepted", "weaver", "the loss is",
                            "lower the learning rate"}));
}

}  // namespace
}  // namespace weft::testing
