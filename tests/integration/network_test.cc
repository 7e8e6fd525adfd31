// What real networks do to links, between real processes over CURVE: they are late, slow, silent
// for longer than anybody's patience, half closed, or reset again and again. The run takes longer;
// its bits are those of an undisturbed one, and each update counts once.

#include <algorithm>
#include <ostream>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "tests/integration/federation.h"

namespace weft::testing {

void PrintTo(Way way, std::ostream* out) { *out << (way == Way::kUp ? "up" : "down"); }

namespace {

constexpr uint64_t kChunk = 256 * 1024;

/// Two rounds with weaver's update of 9 chunks; everybody has to deliver.
Settings TwoRounds() {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  return settings;
}

class NetworkTest : public ::testing::Test {
 protected:
  void Start(const Settings& settings = TwoRounds()) {
    federation_ = std::make_unique<Federation>(settings);
  }
  void Go() { everybody_.emplace(*federation_); }
  TcpForwarder& link(const std::string& site) { return federation_->link(site); }
  [[nodiscard]] std::string Logs() const { return everybody_->Logs(); }

  void ExpectTheRunAsIfUndisturbed() {
    everybody_->ExpectCompleted();
    EXPECT_EQ(federation_->Hashes(), federation_->SimulatedHashes());
    for (uint32_t round = 1; round <= federation_->settings().run.num_server_rounds; ++round) {
      std::vector<std::string> accepted = federation_->AcceptedIn(round);
      std::sort(accepted.begin(), accepted.end());
      EXPECT_EQ(accepted, kSites) << "each update counts once, round " << round << Logs();
    }
    EXPECT_TRUE(federation_->Verified());
  }

  std::unique_ptr<Federation> federation_;
  std::optional<Everybody> everybody_;
};

TEST_F(NetworkTest, LinksWithALatencyOf200MsEachWayChangeNoBit) {
  Start();
  for (const std::string& site : kSites) link(site).Delay(0.2);
  Go();
  ExpectTheRunAsIfUndisturbed();
}

TEST_F(NetworkTest, ALinkThatTakesSecondsForAnUpdateIsWaitedForAndNothingIsSentTwice) {
  Settings settings = TwoRounds();
  settings.run.num_server_rounds = 1;
  settings.server.gone_after_s = 3;  // less than an update takes
  Start(settings);
  link("weaver").Throttle(kLargeUpdateBytes / 4);
  Go();
  ExpectTheRunAsIfUndisturbed();
  EXPECT_LT(link("weaver").bytes_up(), kLargeUpdateBytes + kChunk);
}

// Several seconds for a chunk are no reason to ask for it again: it would only be sent twice, and
// all that is said later would wait behind it.
TEST_F(NetworkTest, ALinkThatTakesSecondsForAChunkIsNotAskedForItTwice) {
  Settings settings = QuickSettings();
  settings.run.num_server_rounds = 1;
  Start(settings);
  link("weaver").Throttle(kChunk / 4);
  Go();
  ExpectTheRunAsIfUndisturbed();
  const std::vector<UpdateAccepted> accepted = federation_->EventsOf<UpdateAccepted>();
  ASSERT_FALSE(accepted.empty());
  EXPECT_EQ(accepted.back().header.client.name, "weaver");
  EXPECT_LT(link("weaver").bytes_up(), accepted.back().header.payload_bytes + kChunk);
}

TEST_F(NetworkTest, AnUploadThatStandsForLongerThanEverybodysPatienceGoesOn) {
  Settings settings = TwoRounds();
  settings.server.gone_after_s = 2;
  Start(settings);
  link("weaver").StallAfter(kMiddleOfUpload);
  Go();
  ASSERT_TRUE(federation_->WeaverIsHalfWay(1)) << Logs();
  ASSERT_TRUE(everybody_->aggregator->WaitForLine({"client gone", "client=weaver"})) << Logs();
  link("weaver").Resume();
  ExpectTheRunAsIfUndisturbed();
}

TEST_F(NetworkTest, ADownloadThatStandsForLongerThanEverybodysPatienceGoesOn) {
  Settings settings = TwoRounds();
  settings.server.gone_after_s = 2;
  Start(settings);
  link("weaver").StallAfter(kMiddleOfUpload, Way::kDown);
  Go();
  ASSERT_TRUE(link("weaver").WaitUntilReached()) << Logs();
  ASSERT_TRUE(everybody_->clients["weaver"]->WaitForLine({"nothing heard"})) << Logs();
  link("weaver").Resume();
  ExpectTheRunAsIfUndisturbed();
}

TEST_F(NetworkTest, EveryLinkResetAtOnceInTheMiddleOfUploadsIsTakenUpAgain) {
  Start();
  // In the middle of the only chunk, of the last of two, and of the third of nine.
  link("harbour").StallAfter(kChunk / 3);
  link("hospital").StallAfter(kChunk + kChunk / 16);
  link("weaver").StallAfter(kMiddleOfUpload);
  Go();
  for (const std::string& site : kSites) {
    ASSERT_TRUE(link(site).WaitUntilReached()) << site << Logs();
  }
  for (const std::string& site : kSites) link(site).Cut();
  ExpectTheRunAsIfUndisturbed();
  for (const std::string& site : kSites) EXPECT_GE(link(site).connections(), 2U) << site;
}

/// One end of weaver's link is told that the other has ended, the other is told nothing.
class HalfClosedTest : public NetworkTest, public ::testing::WithParamInterface<Way> {};

TEST_P(HalfClosedTest, ALinkThatIsHalfClosedInTheMiddleOfAnUploadIsReplaced) {
  Settings settings = TwoRounds();
  settings.server.gone_after_s = 3;
  Start(settings);
  // By what goes up for both: either way the upload is in its middle.
  link("weaver").StallAfter(kMiddleOfUpload);
  Go();
  ASSERT_TRUE(federation_->WeaverIsHalfWay(1)) << Logs();
  link("weaver").HalfCloseAfter(0, GetParam());
  ExpectTheRunAsIfUndisturbed();
  EXPECT_GE(link("weaver").connections(), 2U);
}

INSTANTIATE_TEST_SUITE_P(Told, HalfClosedTest, ::testing::Values(Way::kUp, Way::kDown),
                         [](const auto& test) {
                           return test.param == Way::kUp ? "the_aggregator" : "the_client";
                         });

/// All links break after as many bytes, again and again until the run's end.
class ResetsTest : public NetworkTest, public ::testing::WithParamInterface<Way> {};

TEST_P(ResetsTest, LinksThatAreResetAfterEveryChunkAndAHalfChangeNoBit) {
  Settings settings = TwoRounds();
  settings.run.num_server_rounds = 1;
  Start(settings);
  for (const std::string& site : kSites) link(site).CutEvery(kChunk * 3 / 2, GetParam());
  Go();
  ExpectTheRunAsIfUndisturbed();
  EXPECT_GE(link("weaver").connections(), 8U);
}

INSTANTIATE_TEST_SUITE_P(Going, ResetsTest, ::testing::Values(Way::kUp, Way::kDown),
                         [](const auto& test) { return test.param == Way::kUp ? "up" : "down"; });

}  // namespace
}  // namespace weft::testing
