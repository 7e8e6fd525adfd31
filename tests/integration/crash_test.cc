// Processes killed with SIGKILL at known moments. A link that holds an upload still in its middle
// makes the moments certain: a client is killed during its upload, an aggregator in a round of
// which it has accepted some updates but not all.

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include <gtest/gtest.h>

#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

using Strings = std::vector<std::string>;

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

void Kill(Process& process) {
  process.Signal(SIGKILL);
  EXPECT_EQ(process.Wait(), -SIGKILL) << process.log();
}

/// The round's three updates, each taken once.
void ExpectAllAccepted(const Federation& federation, uint32_t round) {
  Strings accepted = federation.AcceptedIn(round);
  std::sort(accepted.begin(), accepted.end());
  EXPECT_EQ(accepted, kSites) << "round " << round;
}

TEST(CrashTest, AClientKilledDuringItsUploadLeavesTheRoundToTheQuorumAndIsInTheNext) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  settings.cohort.quorum = 0.6;
  settings.server.gone_after_s = 4;
  Federation federation(settings);
  federation.link("weaver").StallAfter(kMiddleOfUpload);
  Everybody everybody(federation);
  ASSERT_TRUE(federation.WeaverIsHalfWay(1)) << everybody.Logs();
  Kill(*everybody.clients["weaver"]);
  federation.link("weaver").Resume();
  ASSERT_TRUE(everybody.aggregator->WaitForLine({"round closed", "round=1"})) << everybody.Logs();
  // Round 2 waits for it: min-available-nodes is 3.
  everybody.clients["weaver"] = federation.Client("weaver");
  everybody.ExpectCompleted();

  const std::vector<ClientDropped> dropped = federation.EventsOf<ClientDropped>();
  ASSERT_EQ(dropped.size(), 1U) << everybody.Logs();
  EXPECT_EQ(dropped[0].client.name, "weaver");
  EXPECT_EQ(dropped[0].round.number, 1U);
  EXPECT_EQ(dropped[0].phase, "upload");
  EXPECT_EQ(federation.AcceptedIn(1).size(), 2U);
  ExpectAllAccepted(federation, 2);
  EXPECT_TRUE(federation.Verified());
}

TEST(CrashTest, AClientKilledDuringItsUploadAndStartedAgainDeliversTheRestOfTheSameUpdate) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  Federation federation(settings);
  federation.link("weaver").StallAfter(kMiddleOfUpload);
  Everybody everybody(federation);
  ASSERT_TRUE(federation.WeaverIsHalfWay(1)) << everybody.Logs();
  Kill(*everybody.clients["weaver"]);
  federation.link("weaver").Cut();  // what was on its way is lost with the machine
  everybody.clients["weaver"] = federation.Client("weaver");
  everybody.ExpectCompleted();

  const std::string& second_life = everybody.clients["weaver"]->log();
  EXPECT_NE(second_life.find("update of before is offered again round=1"), std::string::npos)
      << second_life;
  EXPECT_EQ(Count(second_life, "trained round="), 1U) << "round 2 only" << second_life;
  EXPECT_NE(everybody.aggregator->log().find("upload resumes client=weaver kept=524288"),
            std::string::npos)
      << everybody.aggregator->log();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes());
}

/// Three clients and an aggregator that has accepted the updates of all but weaver in round 2.
class HalfARoundTest : public ::testing::Test {
 protected:
  HalfARoundTest() : federation_(SettingsWithALargeUpdate()) {
    federation_.link("weaver").StallAfter(kLargeUpdateBytes + kMiddleOfUpload);
    everybody_.emplace(federation_);
    EXPECT_TRUE(Eventually([&] { return federation_.AcceptedIn(2).size() == 2; }))
        << everybody_->Logs();
    EXPECT_TRUE(federation_.WeaverIsHalfWay(2)) << everybody_->Logs();
  }

  void ExpectTheRunAsIfUndisturbed() {
    everybody_->ExpectCompleted();
    EXPECT_EQ(federation_.Hashes(), federation_.SimulatedHashes());
    for (const uint32_t round : {1U, 2U, 3U}) ExpectAllAccepted(federation_, round);
    EXPECT_TRUE(federation_.Verified());
  }

  Federation federation_;
  std::optional<Everybody> everybody_;
};

TEST_F(HalfARoundTest, AnAggregatorKilledInItEndsWithTheSameAdapterAndAsksNothingTwice) {
  Kill(*everybody_->aggregator);
  federation_.link("weaver").Resume();
  everybody_->aggregator = federation_.Aggregator();
  ExpectTheRunAsIfUndisturbed();
  for (const auto& [site, client] : everybody_->clients) {
    EXPECT_EQ(Count(client->log(), "trained round="), 3U) << site << client->log();
  }
  EXPECT_NE(everybody_->aggregator->log().find("upload resumes client=weaver kept=524288"),
            std::string::npos)
      << "chunks on disk are not pulled again" << everybody_->aggregator->log();
}

TEST_F(HalfARoundTest, EverybodyKilledAtOnceAndStartedAgainEndsWithTheSameAdapter) {
  Kill(*everybody_->aggregator);
  for (const auto& [site, client] : everybody_->clients) Kill(*client);
  federation_.link("weaver").Resume();
  everybody_.emplace(federation_);
  ExpectTheRunAsIfUndisturbed();
}

TEST_F(HalfARoundTest, AnAggregatorEndedBySigtermStopsEverybodyAndTheNextStartGoesOn) {
  everybody_->aggregator->Signal(SIGTERM);
  federation_.link("weaver").Resume();
  EXPECT_EQ(everybody_->aggregator->Wait(), 4) << everybody_->aggregator->log();
  EXPECT_EQ(federation_.EventsOf<RunFinished>().back().state, kRunStopped);
  for (const auto& [site, client] : everybody_->clients) {
    EXPECT_EQ(client->Wait(), 4) << site << client->log();
  }
  everybody_.emplace(federation_);
  ExpectTheRunAsIfUndisturbed();
}

TEST_F(HalfARoundTest, AStoppedRunIsResumedFromItsFolderAlone) {
  const Ran asked = Execute("weft", {"runs", "stop", federation_.run_folder().string()});
  EXPECT_TRUE(Succeeded(asked));
  federation_.link("weaver").Resume();
  EXPECT_EQ(everybody_->aggregator->Wait(), 4) << everybody_->aggregator->log();
  everybody_->aggregator = federation_.Resumed();
  EXPECT_TRUE(Refused(Execute("weft", {"runs", "resume", federation_.run_folder().string()}),
                      {"is at work on it already"}));
  for (const std::string& site : kSites) {
    EXPECT_EQ(everybody_->clients[site]->Wait(), 4);
    everybody_->clients[site] = federation_.Client(site);
  }
  ExpectTheRunAsIfUndisturbed();
}

void FlipABit(const std::filesystem::path& file) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  ASSERT_TRUE(stream.good()) << file;
  const auto middle = static_cast<std::streamoff>(std::filesystem::file_size(file) / 2);
  stream.seekg(middle);
  const int byte = stream.get();
  stream.seekp(middle);
  stream.put(static_cast<char>(byte ^ 4));
}

TEST_F(HalfARoundTest, FilesDamagedWhileTheAggregatorIsDownAreMadeAgainOrAskedFor) {
  Kill(*everybody_->aggregator);
  ASSERT_NO_FATAL_FAILURE(FlipABit(federation_.run_folder() / "state/round-0001"));
  ASSERT_NO_FATAL_FAILURE(FlipABit(federation_.run_folder() / "spool/round-0002/harbour"));
  EXPECT_FALSE(federation_.Verified());
  federation_.link("weaver").Resume();
  everybody_->aggregator = federation_.Aggregator();
  everybody_->ExpectCompleted();
  EXPECT_EQ(federation_.Hashes(), federation_.SimulatedHashes());
  EXPECT_TRUE(federation_.Verified());
  const std::string& log = everybody_->aggregator->log();
  EXPECT_NE(log.find("file=state/round-0001"), std::string::npos) << log;
  EXPECT_NE(log.find("the state is whole again"), std::string::npos) << log;
  const std::vector<UpdateLost> lost = federation_.EventsOf<UpdateLost>();
  ASSERT_EQ(lost.size(), 1U);
  EXPECT_EQ(lost.front().client.name, "harbour");
}

/// Kills the aggregator where its files say that a version is `stage`: it is frozen first and
/// looked at, so that the moment is certain; if it had gone further, the next round is tried.
class PublishingTest : public ::testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] static bool AtStage(const Federation& federation, uint32_t round) {
    const std::string name = "round-000" + std::to_string(round);
    const bool state = exists(federation.run_folder() / "state" / name);
    const bool recorded = federation.Hashes().size() > round;
    return GetParam() == std::string("merged") ? !state : state && !recorded;
  }
  [[nodiscard]] static bool Reached(const Federation& federation, Process& aggregator,
                                    uint32_t round) {
    const std::string number = std::to_string(round);
    if (!aggregator.WaitForLine({"round closed", "round=" + number})) return false;
    return GetParam() == std::string("merged") || Eventually([&] {
             return exists(federation.run_folder() / "state" / ("round-000" + number));
           });
  }
};

TEST_P(PublishingTest, AnAggregatorKilledWhileAVersionIsMadeEndsWithTheSameAdapter) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 5;
  Federation federation(settings);
  Everybody everybody(federation);
  bool hit = false;
  for (uint32_t round = 1; round <= 4 && !hit; ++round) {
    ASSERT_TRUE(Reached(federation, *everybody.aggregator, round)) << everybody.Logs();
    everybody.aggregator->Signal(SIGSTOP);
    hit = AtStage(federation, round);
    if (!hit) everybody.aggregator->Signal(SIGCONT);
  }
  EXPECT_TRUE(hit) << "four rounds went by too quickly: look for the stage more often";
  Kill(*everybody.aggregator);
  everybody.aggregator = federation.Aggregator();
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes());
  EXPECT_TRUE(federation.Verified());
}

INSTANTIATE_TEST_SUITE_P(Stages, PublishingTest, ::testing::Values("merged", "published"),
                         [](const auto& test) { return std::string(test.param); });

}  // namespace
}  // namespace weft::testing
