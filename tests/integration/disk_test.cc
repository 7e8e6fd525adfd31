// A full disk: under the aggregator it ends the run with a reason, and nothing that was accepted is
// lost; under a client it costs that client the round.

#include <csignal>
#include <filesystem>

#include <gtest/gtest.h>

#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

bool Has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

/// Weaver's link holds its update of round 2 in its middle; the others' are accepted.
class DiskTest : public ::testing::Test {
 protected:
  DiskTest() : federation_(SettingsWithALargeUpdate()) {
    federation_.link("weaver").StallAfter(kLargeUpdateBytes + kMiddleOfUpload);
    everybody_.emplace(federation_);
    EXPECT_TRUE(Eventually([&] { return federation_.AcceptedIn(2).size() == 2; }))
        << everybody_->Logs();
    EXPECT_TRUE(federation_.WeaverIsHalfWay(2)) << everybody_->Logs();
  }

  /// Everybody ends because the aggregator could not write; what it said.
  std::string ExpectAllFailed() {
    federation_.link("weaver").Resume();
    const int code = everybody_->aggregator->Wait();
    EXPECT_EQ(code, 1) << everybody_->Logs();
    if (code != 1) return "";  // nobody tells the clients
    EXPECT_TRUE(Has(everybody_->aggregator->log(), "weft-aggregator: error: "));
    EXPECT_TRUE(Has(everybody_->aggregator->log(), "free space in the run folder"));
    for (const auto& [site, client] : everybody_->clients) {
      EXPECT_EQ(client->Wait(), 1) << everybody_->Logs();
      EXPECT_TRUE(Has(client->log(), "free space in the run folder")) << client->log();
    }
    return everybody_->aggregator->log();
  }

  void ExpectTheNextStartGoesOn() {
    everybody_.emplace(federation_);
    everybody_->ExpectCompleted();
    EXPECT_TRUE(Has(everybody_->aggregator->log(), "accepted=2")) << everybody_->Logs();
    EXPECT_EQ(federation_.Hashes(), federation_.SimulatedHashes());
    EXPECT_EQ(federation_.AcceptedIn(2).size(), 3U) << "nobody delivered twice";
    EXPECT_TRUE(federation_.Verified());
  }

  Federation federation_;
  std::optional<Everybody> everybody_;
};

TEST_F(DiskTest, FullInTheSpoolEndsTheRunWithAReasonAndTheNextStartGoesOn) {
  // Every write to this device says that no space is left.
  const std::filesystem::path part = federation_.run_folder() / "spool/round-0002/weaver.part";
  std::filesystem::remove(part);
  std::filesystem::create_symlink("/dev/full", part);
  const std::string log = ExpectAllFailed();
  EXPECT_TRUE(Has(log, "[spool] update of weaver")) << log;
  EXPECT_EQ(federation_.EventsOf<RunFinished>().back().state, kRunFailed);
  std::filesystem::remove(part);
  ExpectTheNextStartGoesOn();
}

TEST_F(DiskTest, FullForTheLedgerTooEndsTheRunWithAReasonAndTheNextStartGoesOn) {
  everybody_->aggregator->LimitFileBytes(4096);
  const std::string log = ExpectAllFailed();
  EXPECT_TRUE(federation_.EventsOf<RunFinished>().empty()) << "nothing could be written" << log;
  ExpectTheNextStartGoesOn();
}

TEST(ClientDiskTest, AClientWhoseDiskIsFullSaysSoAndTheQuorumGoesOn) {
  Settings settings = SettingsWithALargeUpdate();
  settings.run.num_server_rounds = 2;
  settings.cohort.quorum = 0.6;
  Federation federation(settings);
  Everybody everybody(federation);
  everybody.clients["weaver"]->LimitFileBytes(1 << 20);  // its ledger fits, the update does not
  everybody.ExpectCompleted();
  const std::vector<ClientDropped> dropped = federation.EventsOf<ClientDropped>();
  ASSERT_EQ(dropped.size(), 2U) << everybody.Logs();
  for (const ClientDropped& event : dropped) {
    EXPECT_EQ(event.client.name, "weaver");
    EXPECT_TRUE(Has(event.reason, "the update cannot be kept")) << event.reason;
  }
  EXPECT_EQ(federation.Hashes().size(), 3U);
}

}  // namespace
}  // namespace weft::testing
