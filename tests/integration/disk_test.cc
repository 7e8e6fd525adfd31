// A full disk: under the aggregator it pauses the run until there is space, and nothing that was
// accepted is lost; under a client it costs that client the round.

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

  /// The aggregator waits for space, and everybody for it.
  void ExpectPaused() {
    federation_.link("weaver").Resume();
    EXPECT_TRUE(everybody_->aggregator->WaitForLine({"the run is paused"})) << everybody_->Logs();
    EXPECT_TRUE(Has(everybody_->aggregator->log(), "free space in the run folder"));
  }

  void ExpectItGoesOn() {
    everybody_->ExpectCompleted();
    EXPECT_TRUE(Has(everybody_->aggregator->log(), "there is space again")) << everybody_->Logs();
    EXPECT_EQ(federation_.Hashes(), federation_.SimulatedHashes());
    EXPECT_EQ(federation_.AcceptedIn(2).size(), 3U) << "nobody delivered twice";
    EXPECT_TRUE(federation_.Verified());
  }

  Federation federation_;
  std::optional<Everybody> everybody_;
};

TEST_F(DiskTest, FullInTheSpoolPausesTheRunAndItGoesOnWhenThereIsSpace) {
  // Every write to this device says that no space is left.
  const std::filesystem::path part = federation_.run_folder() / "spool/round-0002/weaver.part";
  std::filesystem::rename(part, part.string() + ".aside");
  std::filesystem::create_symlink("/dev/full", part);
  ExpectPaused();
  std::filesystem::rename(part.string() + ".aside", part);
  ExpectItGoesOn();
}

TEST_F(DiskTest, FullForTheLedgerTooPausesTheRunAndItGoesOnWhenThereIsSpace) {
  everybody_->aggregator->LimitFileBytes(4096);
  ExpectPaused();
  everybody_->aggregator->LimitFileBytes(uint64_t{1} << 40);
  ExpectItGoesOn();
}

TEST_F(DiskTest, ARunThatIsPausedCanBeEndedAndTheNextStartGoesOn) {
  everybody_->aggregator->LimitFileBytes(4096);
  ExpectPaused();
  everybody_->aggregator->Signal(SIGTERM);
  EXPECT_EQ(everybody_->aggregator->Wait(), 4) << everybody_->Logs();
  for (const auto& [site, client] : everybody_->clients) {
    client->Signal(SIGKILL);
    (void)client->Wait();
  }
  everybody_.emplace(federation_);
  everybody_->ExpectCompleted();
  EXPECT_TRUE(Has(everybody_->aggregator->log(), "accepted=2")) << everybody_->Logs();
  EXPECT_EQ(federation_.Hashes(), federation_.SimulatedHashes());
  EXPECT_TRUE(federation_.Verified());
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
