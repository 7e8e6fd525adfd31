// Links that break or freeze in the middle of an upload: what is on the aggregator's disk is not
// pulled again, and nobody who stops in the middle of a chunk stops the round for the others.

#include <gtest/gtest.h>

#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

constexpr uint64_t kChunk = 256 * 1024;

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

TEST(LinkTest, AnUploadCutInItsMiddleResumesFromTheFirstMissingChunk) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  Federation federation(settings);
  TcpForwarder& link = federation.link("weaver");
  link.StallAfter(kMiddleOfUpload);
  Everybody everybody(federation);
  // A link that breaks loses what the aggregator has not read yet; two chunks are safe then.
  ASSERT_TRUE(federation.WeaverIsHalfWay(1)) << everybody.Logs();
  link.Cut();
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes());
  EXPECT_TRUE(Has(everybody.aggregator->log(), "upload resumes client=weaver kept=524288"))
      << everybody.aggregator->log();
  // Two chunks and a half had gone up, and two of them count. Half a chunk is allowed for
  // everything else a client says in two rounds.
  EXPECT_LT(link.bytes_up(), 2 * kLargeUpdateBytes + kChunk);
  EXPECT_GT(link.bytes_up(), 2 * kLargeUpdateBytes);
  for (const UpdateAccepted& event : federation.EventsOf<UpdateAccepted>()) {
    EXPECT_EQ(event.bytes, event.header.payload_bytes)
        << "each chunk came once " << event.header.client << " round " << event.header.round;
  }
}

TEST(LinkTest, ALinkThatBreaksAgainAndAgainDelaysARunAndChangesNoBit) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  Federation federation(settings);
  TcpForwarder& link = federation.link("weaver");
  // Each life of the link carries a little more than one chunk.
  uint64_t limit = kChunk * 3 / 2;
  link.CutAfter(limit);
  Everybody everybody(federation);
  int cuts = 0;
  for (; cuts < 5; ++cuts) {
    ASSERT_TRUE(link.WaitUntilReached()) << "cut " << cuts << everybody.Logs();
    limit += kChunk * 3 / 2;
    link.CutAfter(limit);
  }
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), federation.SimulatedHashes());
  EXPECT_GT(link.connections(), 5U);
}

/// Weaver's link freezes in the middle of the third chunk of its update of round 1, for good.
class FrozenLinkTest : public ::testing::Test {
 protected:
  static Settings Base() {
    Settings settings = SettingsWithALargeUpdate();
    settings.run.num_server_rounds = 2;
    settings.cohort.quorum = 0.6;
    return settings;
  }

  /// Runs until round 1 has closed, lets the link go on, and runs to the end.
  void RunWith(const Settings& settings) {
    federation_ = std::make_unique<Federation>(settings);
    federation_->link("weaver").StallAfter(kMiddleOfUpload);
    Everybody everybody(*federation_);
    ASSERT_TRUE(federation_->link("weaver").WaitUntilReached()) << everybody.Logs();
    ASSERT_TRUE(everybody.aggregator->WaitForLine({"round closed", "round=1", "accepted=2"}))
        << everybody.Logs();
    federation_->link("weaver").Resume();
    everybody.ExpectCompleted();
    EXPECT_EQ(federation_->AcceptedIn(1).size(), 2U) << everybody.Logs();
    EXPECT_EQ(federation_->AcceptedIn(2).size(), 3U) << everybody.Logs();
    EXPECT_TRUE(federation_->Verified());
  }

  /// Why weaver was dropped from round 1.
  [[nodiscard]] std::string Reason() const {
    const std::vector<ClientDropped> dropped = federation_->EventsOf<ClientDropped>();
    return dropped.size() == 1 && dropped[0].client.name == "weaver" ? dropped[0].reason : "";
  }

  std::unique_ptr<Federation> federation_;
};

TEST_F(FrozenLinkTest, APeerThatIsSilentInTheMiddleOfAChunkIsTakenForGone) {
  Settings settings = Base();
  settings.server.gone_after_s = 3;
  RunWith(settings);
  EXPECT_EQ(Reason(), "nothing heard for 3 s");
}

TEST_F(FrozenLinkTest, APeerThatStopsInTheMiddleOfAChunkDoesNotOutlastTheDeadline) {
  Settings settings = Base();
  settings.server.gone_after_s = 100;
  settings.cohort.deadline_s = 8;
  RunWith(settings);
  EXPECT_EQ(Reason(), "the round closed before the update came");
}

}  // namespace
}  // namespace weft::testing
