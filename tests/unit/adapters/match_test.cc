// PEFT's matching rules, held against what PEFT itself chose (tests/golden/peft/make_matching.py).

#include "common/adapters/match.h"

#include <fstream>
#include <map>
#include <string>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/adapters/adapter.h"
#include "common/adapters/peft_config.h"
#include "tests/support/paths.h"

namespace weft {
namespace {

std::vector<LinearSite> SmallDecoder() {
  std::vector<LinearSite> sites;
  for (const char* layer : {"0", "1", "11"}) {
    for (const char* name : {"self_attn.q_proj", "self_attn.v_proj", "mlp.up_proj"}) {
      sites.push_back({std::string("model.layers.") + layer + "." + name, 8, 16});
    }
  }
  sites.push_back({"lm_head", 8, 32});
  return sites;
}

std::vector<std::string> Paths(const Result<std::vector<LinearSite>>& sites) {
  std::vector<std::string> paths;
  if (!sites.ok()) return paths;
  for (const LinearSite& site : *sites) paths.push_back(site.path);
  return paths;
}

TEST(MatchTest, EveryCaseOfTheTableChoosesWhatPeftChose) {
  std::ifstream in(testing::GoldenDir() / "peft" / "matching.json");
  ASSERT_TRUE(in.good());
  const auto table = nlohmann::ordered_json::parse(in);
  std::vector<LinearSite> all;
  for (const auto& path : table["sites"]) all.push_back({path.get<std::string>(), 4, 4});
  size_t cases = 0;
  for (const auto& row : table["cases"]) {
    const std::string text = row["config"].dump();
    const Result<PeftConfig> config = ParsePeftConfig(text, "table");
    ASSERT_TRUE(config.ok()) << text << config.status();
    const auto sites = MatchSites(config->spec, all);
    ++cases;
    if (row["chosen"].is_null()) {
      EXPECT_FALSE(sites.ok()) << text;
      continue;
    }
    ASSERT_TRUE(sites.ok()) << text << sites.status();
    EXPECT_EQ(sites->size(), row["chosen"].size()) << text;
    for (const LinearSite& site : *sites) {
      ASSERT_TRUE(row["chosen"].contains(site.path)) << text << " " << site.path;
      const auto& wanted = row["chosen"][site.path];
      EXPECT_EQ(RankFor(config->spec, site.path), wanted[0].get<int64_t>()) << text << site.path;
      EXPECT_EQ(AlphaFor(config->spec, site.path), wanted[1].get<double>()) << text << site.path;
      EXPECT_DOUBLE_EQ(ScalingFor(config->spec, site.path), wanted[2].get<double>()) << text;
    }
  }
  EXPECT_GE(cases, 25u);
}

TEST(MatchTest, OfSeveralLayerListsTheFirstThatFitsCounts) {
  AdapterSpec spec;
  spec.target_modules = {"q_proj"};
  spec.layers_to_transform = {1, 11};
  for (const char* pattern : {"layers,h", "h,layers"}) {
    spec.layers_pattern = pattern;
    EXPECT_EQ(Paths(MatchSites(spec, SmallDecoder())),
              (std::vector<std::string>{"model.layers.1.self_attn.q_proj",
                                        "model.layers.11.self_attn.q_proj"}))
        << pattern;
  }
}

TEST(MatchTest, AllLinearLeavesOutTheHead) {
  AdapterSpec spec;
  spec.target_modules = {"all-linear"};
  EXPECT_EQ(Paths(MatchSites(spec, SmallDecoder())).size(), 9u);
}

TEST(MatchTest, SitesKeepTheOrderOfTheBase) {
  AdapterSpec spec;
  spec.target_modules = {"v_proj", "q_proj"};
  spec.layers_to_transform = {11, 0};
  EXPECT_EQ(Paths(MatchSites(spec, SmallDecoder())),
            (std::vector<std::string>{
                "model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.v_proj",
                "model.layers.11.self_attn.q_proj", "model.layers.11.self_attn.v_proj"}));
}

TEST(MatchTest, NamedTargetThatMatchesNothingIsNamedWithWhatThereIs) {
  AdapterSpec spec;
  spec.target_modules = {"q_proj", "query"};
  const auto sites = MatchSites(spec, SmallDecoder());
  ASSERT_FALSE(sites.ok());
  EXPECT_EQ(sites.status().code(), Code::kInvalidArgument);
  EXPECT_NE(sites.status().message().find("\"query\" matches no linear layer"), std::string::npos);
  EXPECT_NE(sites.status().message().find("q_proj, v_proj, up_proj, lm_head"), std::string::npos);
}

TEST(MatchTest, ExclusionOfEverythingIsAnError) {
  AdapterSpec spec;
  spec.target_modules = {"q_proj"};
  spec.exclude_modules = {"q_proj"};
  const auto sites = MatchSites(spec, SmallDecoder());
  ASSERT_FALSE(sites.ok());
  EXPECT_NE(sites.status().message().find("matches no linear layer"), std::string::npos);
}

TEST(MatchTest, NoTargetsAtAllIsAnError) {
  EXPECT_EQ(MatchSites(AdapterSpec{}, SmallDecoder()).status().code(), Code::kInvalidArgument);
}

TEST(MatchTest, WrongExpressionsAreRefusedBeforeMatching) {
  for (const int which : {0, 1, 2, 3}) {
    AdapterSpec spec;
    spec.target_modules = {"q_proj"};
    if (which == 0) spec.target_regex = "(";
    if (which == 1) spec.rank_pattern = {{"q_proj)", 2}};
    if (which == 2) spec.alpha_pattern = {{"[", 2.0}};
    if (which == 3) spec.options = {{std::string(kExcludeRegexOption), "*"}};
    EXPECT_EQ(CheckPatterns(spec).code(), Code::kInvalidArgument) << which;
  }
}

TEST(MatchTest, LayersWithAnExpressionAreRefusedAsInPeft) {
  AdapterSpec spec;
  spec.target_regex = ".*q_proj";
  spec.layers_to_transform = {1};
  EXPECT_EQ(CheckPatterns(spec).code(), Code::kInvalidArgument);
}

TEST(MatchTest, LiteralPatternKeysAgreeWithTheExpressionTheyStandFor) {
  // The quick path for plain names must answer as the regular expression does.
  const std::vector<std::string> keys = {"q_proj",
                                         "proj",
                                         "layers.1.self_attn.q_proj",
                                         "model.layers.1.self_attn.q_proj",
                                         "1.self_attn.q_proj",
                                         ".q_proj",
                                         "self_attn"};
  for (const std::string& key : keys) {
    for (const LinearSite& site : SmallDecoder()) {
      EXPECT_EQ(PatternCovers(key, site.path), PatternCovers("(?:" + key + ")", site.path))
          << key << " " << site.path;
    }
  }
}

TEST(MatchTest, CapRanksWritesAnEntryForEverySiteThatIsTooSmall) {
  AdapterSpec spec;
  spec.rank = 12;
  spec.target_modules = {"all-linear"};
  spec.rank_pattern = {{"layers.1.self_attn.q_proj", 3}};
  const std::vector<LinearSite> sites = SmallDecoder();
  const std::vector<std::string> capped = CapRanks(spec, sites);
  EXPECT_EQ(capped.size(), sites.size() - 1);  // the pattern's own site already fits
  for (const LinearSite& site : sites) {
    EXPECT_LE(RankFor(spec, site.path), std::min(site.in, site.out)) << site.path;
  }
  EXPECT_EQ(RankFor(spec, "model.layers.1.self_attn.q_proj"), 3);
  EXPECT_EQ(RankFor(spec, "model.layers.0.self_attn.q_proj"), 8);
  EXPECT_TRUE(CapRanks(spec, sites).empty());
}

}  // namespace
}  // namespace weft
