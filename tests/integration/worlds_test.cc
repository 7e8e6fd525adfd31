// One run.toml, three worlds: the same hash of the global adapter after every round over ZeroMQ
// processes, in one process with queues, and in simulated time with any number of workers.

#include <algorithm>
#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/integration/federation.h"
#include "tests/support/small_encoder.h"

namespace weft::testing {
namespace {

using Strings = std::vector<std::string>;

/// Runs the federation as processes, then in the other worlds, and compares after every round.
void ExpectSameBitsInAllWorlds(Federation& federation) {
  Everybody everybody(federation);
  everybody.ExpectCompleted();
  const Strings hashes = federation.Hashes();
  const auto rounds = static_cast<size_t>(federation.settings().run.num_server_rounds);
  ASSERT_EQ(hashes.size(), rounds + 1) << everybody.Logs();
  EXPECT_EQ(std::set<std::string>(hashes.begin(), hashes.end()).size(), rounds + 1)
      << "every round changes the adapter";
  EXPECT_EQ(federation.SimulatedHashes({"--set", "sim.world=inproc"}), hashes);
  EXPECT_EQ(federation.SimulatedHashes({"--workers", "1"}), hashes);
  EXPECT_EQ(federation.SimulatedHashes({"--workers", "4"}), hashes);
}

class WorldsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(WorldsTest, ArriveAtTheSameBitsAfterEveryRound) {
  Settings settings = QuickSettings();
  settings.strategy.name = GetParam();
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
}

INSTANTIATE_TEST_SUITE_P(Strategies, WorldsTest, ::testing::Values("exact-svd", "fedavg", "flora"),
                         [](const auto& test) {
                           std::string name = test.param;  // a test's name has no hyphen
                           std::erase(name, '-');
                           return name;
                         });

class MethodWorldsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(MethodWorldsTest, ArriveAtTheSameBitsAfterEveryRound) {
  Settings settings = QuickSettings();
  settings.adapter.method = GetParam();
  if (settings.adapter.method == "nola") settings.adapter.options = {{"nola.k", "24"}};
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  for (const UpdateAccepted& update : federation.EventsOf<UpdateAccepted>()) {
    EXPECT_EQ(update.header.spec.method, GetParam());
    const bool few = settings.adapter.method == "nola";
    EXPECT_LT(update.bytes, few ? update.lora_bytes / 2 : 2 * update.lora_bytes);
  }
}

INSTANTIATE_TEST_SUITE_P(Methods, MethodWorldsTest,
                         ::testing::Values("nola", "msplora", "roselora", "kasa"),
                         [](const auto& test) { return std::string(test.param); });

TEST(WireWorldsTest, ArriveAtTheSameBitsWithTheLargestOfEachChangeAndARoundedDownlink) {
  Settings settings = QuickSettings();
  settings.strategy.name = "fedavg";
  settings.wire.codec = "int8";
  settings.wire.delta = true;
  settings.wire.top_k = 0.25;
  settings.wire.compress = true;
  settings.wire.down_codec = "bfloat16";
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  EXPECT_TRUE(federation.Verified());
  for (const UpdateAccepted& update : federation.EventsOf<UpdateAccepted>()) {
    EXPECT_LT(update.bytes, update.lora_bytes / 4) << "and most of them the list of contents";
  }
  for (const RoundPublished& round : federation.EventsOf<RoundPublished>()) {
    if (round.version.number == 0) continue;
    EXPECT_GT(round.certificate.error_codec, 1e-4);
    EXPECT_LT(round.certificate.error_codec, 1e-2);
  }
}

TEST(NativeWorldsTest, ArriveAtTheSameBitsInTheMethodsOwnCoordinates) {
  Settings settings = QuickSettings();
  settings.strategy.name = "native";
  settings.adapter.method = "msplora";
  settings.adapter.rank = 8;
  settings.adapter.alpha = 16;
  for (ClientSettings& client : settings.clients) client.rank = "8";
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  EXPECT_TRUE(federation.Verified());
}

TEST(PersonalWorldsTest, WhatASiteKeepsIsExportedBesideTheRunsAdapter) {
  Settings settings = QuickSettings();
  settings.adapter.method = "msplora";
  settings.adapter.options = {{"msplora.part", "personal"}};
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  std::set<std::string> adapters;
  for (const std::string& site : kSites) {
    const std::filesystem::path local = federation.File("client-" + site) + "/local";
    ASSERT_TRUE(std::filesystem::is_directory(local)) << local;
    std::filesystem::path newest;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(local)) {
      if (entry.is_regular_file()) newest = std::max(newest, entry.path());
    }
    const std::string out = federation.File("personal-" + site);
    EXPECT_TRUE(Succeeded(Execute("weft", {"adapter", "export", newest.string(), "--beside",
                                           federation.run_folder().string(), "--out", out})));
    const Ran inspected = Execute("weft", {"adapter", "inspect", out, "--json"});
    EXPECT_TRUE(Succeeded(inspected));
    adapters.insert(inspected.out);
  }
  EXPECT_EQ(adapters.size(), kSites.size()) << "each site has one of its own";
}

TEST(MixedMethodsWorldsTest, ArriveAtTheSameBitsWithAMethodForEachSite) {
  Settings settings = QuickSettings();
  settings.adapter.options = {{"nola.k", "24"}};
  settings.clients[0].method = "nola";
  settings.clients[2].method = "kasa";
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  std::set<std::string> methods;
  for (const UpdateAccepted& update : federation.EventsOf<UpdateAccepted>()) {
    methods.insert(update.header.spec.method);
  }
  EXPECT_EQ(methods, (std::set<std::string>{"kasa", "lora", "nola"}));
}

/// The same federation on a small encoder, its sites' rows classified.
Settings ClassifyingSettings(const TempFolder& folder) {
  EXPECT_TRUE(WriteSmallEncoder(folder.path() / "model").ok());
  Settings settings = QuickSettings();
  settings.run.num_server_rounds = 2;
  settings.model.path = folder.path() / "model";
  settings.adapter.target_modules = {"query", "value"};
  settings.adapter.modules_to_save = {"classifier"};
  settings.adapter.labels = {"bad", "good"};
  settings.evaluate.data = "";
  int rows = 20;
  for (ClientSettings& site : settings.clients) {
    site.rank = "4";
    site.data = folder.Write(site.name + ".jsonl", SmallSentiment(rows)).string();
    site.valid = "";
    site.valid_fraction = 0.2;
    rows += 10;
  }
  return settings;
}

TEST(PosteriorWorldsTest, TheFinalAdapterIsMeasuredOverProcessesAndVerifies) {
  const TempFolder folder;
  Settings settings = ClassifyingSettings(folder);
  settings.laplace.fit = true;
  settings.run.keep_updates = true;
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  const std::vector<PosteriorFitted> fitted = federation.EventsOf<PosteriorFitted>();
  ASSERT_EQ(fitted.size(), 1u);
  EXPECT_EQ(fitted[0].clients.size(), 3u);
  EXPECT_EQ(fitted[0].examples, 16u + 24u + 32u);
  const Ran verified =
      Execute("weft", {"runs", "verify", federation.run_folder().string(), "--json"});
  EXPECT_TRUE(Succeeded(verified));
  EXPECT_NE(verified.out.find(R"("certificates_recomputed":2,"rounds_without_updates":0,)"
                              R"("rounds_measured":1)"),
            std::string::npos)
      << verified.out;
  const Ran predicted =
      Execute("weft", {"laplace", "predict", "--model", settings.model.path, "--adapter",
                       (federation.run_folder() / "adapters/round-0002").string(), "--posterior",
                       (federation.run_folder() / fitted[0].file.name).string(), "--data",
                       settings.clients[0].data, "--samples", "200", "--json"});
  EXPECT_TRUE(Succeeded(predicted));
  EXPECT_NE(predicted.out.find("\"laplace\""), std::string::npos) << predicted.out;
}

TEST(SampledWorldsTest, ArriveAtTheSameBitsWhenOnlyAPartOfTheClientsTrainsInEachRound) {
  Settings settings = QuickSettings();
  settings.run.num_server_rounds = 5;
  settings.cohort.fraction_train = 0.5;
  settings.cohort.fraction_evaluate = 0.5;
  Federation federation(settings);
  ExpectSameBitsInAllWorlds(federation);
  std::set<Strings> cohorts;
  for (const RoundOpened& round : federation.EventsOf<RoundOpened>()) {
    Strings cohort;
    for (const ClientPlan& client : round.plan.cohort) cohort.push_back(client.client.name);
    EXPECT_EQ(cohort.size(), 2U);
    cohorts.insert(cohort);
  }
  EXPECT_GT(cohorts.size(), 1U) << "cohorts are drawn anew in each round";
  EXPECT_NE(federation.SimulatedHashes({"--seed", "8"}), federation.Hashes());
}

TEST(AttackedWorldsTest, TheSimulatorsReportNamesTheAttackersAndWhoWasTurnedAway) {
  Settings settings = QuickSettings();
  settings.cohort.quorum = 0.6;
  settings.sim.attack = "rank-inflation";
  settings.sim.attackers = 1;
  const Federation federation(settings);
  const auto attack = nlohmann::json::parse(federation.SimulatedReport()).at("attack");
  EXPECT_EQ(attack.at("name"), "rank-inflation");
  EXPECT_EQ(attack.at("scale"), 2);
  EXPECT_EQ(attack.at("attackers"), Strings{"weaver"});
  ASSERT_EQ(attack.at("refused").size(), 3u) << "one a round";
  EXPECT_EQ(attack.at("refused")[1].at("round"), 2);
  EXPECT_EQ(attack.at("refused")[1].at("client"), "weaver");
  EXPECT_NE(attack.at("refused")[1].at("reason").get<std::string>().find("rank is 32"),
            std::string::npos)
      << attack;
}

}  // namespace
}  // namespace weft::testing
