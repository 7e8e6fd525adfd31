// An aggregator or a client that dies at any moment and is started again on what its disk held.

#include "aggregator/recovery.h"

#include <algorithm>

#include <gtest/gtest.h>

#include "sim/invariants.h"
#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

void StartAll(FakeWorld& world) {
  world.StartClient("alpha", 4);
  world.StartClient("beta", 8);
  world.StartClient("gamma", 16);
}

/// Hashes and writes of a run that nothing disturbed.
struct Undisturbed {
  explicit Undisturbed(const Settings& settings, bool local_state_counts = true) : world(settings) {
    world.local_state_counts = local_state_counts;
    EXPECT_TRUE(world.StartAggregator().ok());
    StartAll(world);
    EXPECT_TRUE(world.RunToEnd());
    hashes = world.Hashes();
  }
  FakeWorld world;
  std::vector<std::string> hashes;
};

TEST(RecoveryTest, FromTheDiskAfterAnyWriteTheRunEndsWithTheSameAdapter) {
  // The clients come with empty disks, so what they train may not depend on those.
  const Undisturbed whole(UsualSettings(2), false);
  const std::vector<StoreWrite>& writes = whole.world.disk->writes;
  ASSERT_GT(writes.size(), 40U);
  for (size_t kept = 0; kept <= writes.size(); ++kept) {
    FakeWorld world(UsualSettings(2));
    world.local_state_counts = false;
    for (size_t i = 0; i < kept; ++i) writes[i](*world.disk);
    const Status started = world.StartAggregator();
    ASSERT_TRUE(started.ok()) << kept << ": " << started;
    StartAll(world);
    ASSERT_TRUE(world.RunToEnd()) << "after write " << kept;
    ASSERT_TRUE(world.aggregator().Outcome().ok()) << kept << world.aggregator().Outcome();
    ASSERT_EQ(world.Hashes(), whole.hashes) << "after write " << kept;
  }
}

void FlipABit(Store& disk, const std::string& name) {
  const Result<Blob> blob = disk.ReadBlob(name);
  ASSERT_TRUE(blob.ok()) << blob.status();
  std::string bytes(blob->view());
  bytes[bytes.size() / 2] ^= 4;
  disk.WriteBlob(name, Blob::Adopt(std::move(bytes)), [](const Status&) {});
}

TEST(RecoveryTest, FromTheDiskAfterAnyWriteWithAnyOneFileDamagedTheRunEndsWithTheSameAdapter) {
  const Undisturbed whole(UsualSettings(3), false);
  const std::vector<StoreWrite>& writes = whole.world.disk->writes;
  size_t damaged = 0;
  for (size_t kept = 0; kept <= writes.size(); ++kept) {
    for (size_t which = 0;; ++which) {
      FakeWorld world(UsualSettings(3));
      world.local_state_counts = false;
      for (size_t i = 0; i < kept; ++i) writes[i](*world.disk);
      const std::vector<std::string> blobs = world.disk->ListBlobs("");
      if (which >= blobs.size()) break;
      ASSERT_NO_FATAL_FAILURE(FlipABit(*world.disk, blobs[which]));
      ++damaged;
      const std::string when = "after write " + std::to_string(kept) + ", " + blobs[which];
      const Status started = world.StartAggregator();
      ASSERT_TRUE(started.ok()) << when << ": " << started;
      StartAll(world);
      ASSERT_TRUE(world.RunToEnd()) << when;
      ASSERT_TRUE(world.aggregator().Outcome().ok()) << when << world.aggregator().Outcome();
      ASSERT_EQ(world.Hashes(), whole.hashes) << when;
    }
  }
  EXPECT_GT(damaged, 100U);
}

TEST(RecoveryTest, AStateThatCannotBeMadeAgainIsNamedAndTheRunStops) {
  const Undisturbed whole(UsualSettings(3), false);
  FakeWorld world(UsualSettings(3));
  for (const StoreWrite& write : whole.world.disk->writes) {
    write(*world.disk);
    if (world.Events<RoundPublished>().size() == 3) break;
  }
  ASSERT_NO_FATAL_FAILURE(FlipABit(*world.disk, "state/round-0002"));
  const std::vector<std::string> spool = world.disk->ListBlobs("spool/round-0002/");
  ASSERT_EQ(spool.size(), 3U) << "the newest version's updates stay";
  for (const std::string& name : spool) world.disk->RemoveBlob(name, [](const Status&) {});
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  const Status outcome = world.aggregator().Outcome();
  EXPECT_EQ(outcome.code(), Code::kDataLoss);
  EXPECT_NE(outcome.message().find("state/round-0002"), std::string::npos) << outcome;
  EXPECT_NE(outcome.message().find("is gone or damaged, too"), std::string::npos) << outcome;
}

TEST(RecoveryTest, AnAggregatorKilledAtAnyMomentGoesOnWithTheSameClients) {
  const Undisturbed whole(UsualSettings(2));
  const size_t writes = whole.world.disk->writes.size();
  for (size_t at = 1; at < writes; at += 3) {
    FakeWorld world(UsualSettings(2));
    ASSERT_TRUE(world.StartAggregator().ok());
    StartAll(world);
    ASSERT_TRUE(world.RunUntil([&] { return world.disk->writes.size() >= at; }));
    world.KillAggregator();
    world.RunFor(7);
    ASSERT_TRUE(world.StartAggregator().ok());
    ASSERT_TRUE(world.RunToEnd()) << "killed at write " << at;
    ASSERT_TRUE(world.aggregator().Outcome().ok()) << at << world.aggregator().Outcome();
    ASSERT_EQ(world.Hashes(), whole.hashes) << "killed at write " << at;
    for (const char* name : {"alpha", "beta", "gamma"}) {
      EXPECT_EQ(world.trained(name), 2) << name << " trained again, aggregator killed at " << at;
    }
  }
}

TEST(RecoveryTest, AClientKilledAtAnyMomentDeliversWhatItWouldHave) {
  const Undisturbed whole(UsualSettings(2));
  const size_t writes = whole.world.client_disks.at("beta")->writes.size();
  ASSERT_GT(writes, 10U);
  for (size_t at = 1; at < writes; ++at) {
    FakeWorld world(UsualSettings(2));
    ASSERT_TRUE(world.StartAggregator().ok());
    StartAll(world);
    ASSERT_TRUE(world.RunUntil([&] { return world.client_disks["beta"]->writes.size() >= at; }));
    world.KillClient("beta");
    world.RunFor(3);
    world.StartClient("beta", 8);
    ASSERT_TRUE(world.RunToEnd()) << "killed at write " << at;
    ASSERT_TRUE(world.aggregator().Outcome().ok()) << at << world.aggregator().Outcome();
    ASSERT_EQ(world.Hashes(), whole.hashes) << "killed at write " << at;
  }
}

// What was said of the version that the open round starts from is not said of the next.
TEST(RecoveryTest, AVersionMadeAfterARestartIsEvaluatedAnew) {
  FakeWorld world(UsualSettings(3));
  world.on_evaluate_here = [](const ServerEvaluateJob& job) -> Result<ServerEvaluateJob::Output> {
    return ServerEvaluateJob::Output{.loss = 10.0 - job.version.number, .label_tokens = 5};
  };
  ASSERT_TRUE(world.StartAggregator().ok());
  for (const char* name : {"alpha", "beta", "gamma"}) world.StartClient(name, 8);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 2; }));
  world.KillAggregator();
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  std::map<uint32_t, size_t> reports;
  for (const EvalReported& event : world.Events<EvalReported>()) {
    ++reports[event.report.version.number];
  }
  const std::vector<ServerEvaluated> here = world.Events<ServerEvaluated>();
  ASSERT_EQ(here.size(), 4u);
  for (uint32_t version = 0; version <= 3; ++version) {
    EXPECT_EQ(reports[version], 3u) << version;
    EXPECT_EQ(here[version].version.number, version);
    EXPECT_EQ(here[version].loss, 10.0 - version);
  }
}

TEST(RecoveryTest, AStoppedRunGoesOnWhereItWas) {
  const Undisturbed whole(UsualSettings(3));
  FakeWorld world(UsualSettings(3));
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == 4; }));
  world.aggregator().Stop(Cancelled("signal 15"));
  ASSERT_TRUE(world.RunToEnd(60));
  EXPECT_EQ(world.aggregator().Outcome().code(), Code::kCancelled);
  EXPECT_EQ(world.Events<RunFinished>().back().state, kRunStopped);
  EXPECT_TRUE(world.client("alpha").Finished());
  EXPECT_EQ(world.client("alpha").Outcome().code(), Code::kCancelled);
  world.KillAggregator();
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  EXPECT_EQ(world.Hashes(), whole.hashes);
}

TEST(RecoveryTest, AStopRequestEndsTheRunAsStopped) {
  FakeWorld world(UsualSettings(3));
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 1; }));
  world.hold_training = {"alpha", "beta", "gamma"};
  world.stop_requested = [] { return std::optional<std::string>("enough for today"); };
  ASSERT_TRUE(world.RunToEnd(60));
  EXPECT_EQ(world.Events<RunFinished>().back().reason, "enough for today");
}

TEST(RecoveryTest, ADiskFullInTheSpoolEndsTheRunWithAReasonAndNothingIsLost) {
  const Undisturbed whole(UsualSettings(2));
  FakeWorld world(UsualSettings(2));
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == 1; }));
  world.disk->full_for = "spool/";
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.aggregator().Outcome().code(), Code::kResourceExhausted);
  EXPECT_NE(world.aggregator().Outcome().message().find("no space left"), std::string::npos);
  world.KillAggregator();
  world.disk->full_for.clear();
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.Hashes(), whole.hashes);
}

/// A run that stands in round 1 with alpha's and beta's updates accepted, gamma training, its
/// aggregator killed, and beta's update gone from the spool.
void LoseUpdate(FakeWorld& world) {
  world.hold_training = {"gamma"};
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == 2; }));
  world.RunFor(2);  // the clients have heard of it
  world.KillAggregator();
  const std::vector<UpdateAccepted> accepted = world.Events<UpdateAccepted>();
  const auto beta = std::find_if(accepted.begin(), accepted.end(), [](const UpdateAccepted& event) {
    return event.header.client.name == "beta";
  });
  ASSERT_NE(beta, accepted.end());
  ASSERT_TRUE(world.disk->ReadBlob(beta->blob).ok());
  world.disk->RemoveBlob(beta->blob, [](const Status&) {});
  world.RunFor(7);
}

/// The training that was held goes on, the run ends well, and its ledger keeps the rules.
void ReleaseToTheEnd(FakeWorld& world) {
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  ASSERT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  const Status rules = sim::CheckRunLedger(world.Ledger(), world.settings);
  EXPECT_TRUE(rules.ok()) << rules;
}

void GoOnToTheEnd(FakeWorld& world) {
  const Status again = world.StartAggregator();
  ASSERT_TRUE(again.ok()) << again;
  ReleaseToTheEnd(world);
}

TEST(RecoveryTest, AnUpdateThatIsGoneFromTheSpoolIsAskedForAgainAndTheLedgerSaysSo) {
  const Undisturbed whole(UsualSettings(2));
  FakeWorld world(UsualSettings(2));
  ASSERT_NO_FATAL_FAILURE(LoseUpdate(world));
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == 3; }));
  const std::vector<UpdateLost> lost = world.Events<UpdateLost>();
  ASSERT_EQ(lost.size(), 1U) << "alpha's is there";
  EXPECT_EQ(lost.front().round, RoundId{1});
  EXPECT_EQ(lost.front().client.name, "beta");
  EXPECT_EQ(lost.front().blob, world.Events<UpdateAccepted>().back().blob);
  EXPECT_EQ(world.Events<UpdateAccepted>().back().header.client.name, "beta");
  EXPECT_EQ(world.trained("beta"), 2);

  // Once more before the round is published: what was accepted twice is no damage now.
  world.KillAggregator();
  const Result<RunPosition> position = Replay(world.Ledger());
  ASSERT_TRUE(position.ok()) << position.status();
  EXPECT_EQ(position->accepted.size(), 2U);
  world.RunFor(7);
  ASSERT_NO_FATAL_FAILURE(GoOnToTheEnd(world));
  EXPECT_EQ(world.Events<UpdateLost>().size(), 1U);
  EXPECT_EQ(world.Hashes(), whole.hashes) << "beta trained the same again";
}

TEST(RecoveryTest, AnAggregatorKilledRightAfterALossIsRecordedStillAsksForTheUpdate) {
  const Undisturbed whole(UsualSettings(2));
  FakeWorld world(UsualSettings(2));
  ASSERT_NO_FATAL_FAILURE(LoseUpdate(world));
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunUntil([&] { return !world.Events<UpdateLost>().empty(); }));
  world.KillAggregator();
  ASSERT_EQ(world.Events<UpdateAccepted>().size(), 2U) << "it is not accepted again yet";
  world.RunFor(7);
  ASSERT_NO_FATAL_FAILURE(GoOnToTheEnd(world));
  EXPECT_EQ(world.Events<UpdateLost>().size(), 1U) << "it is lost once";
  EXPECT_EQ(world.Hashes(), whole.hashes);
}

TEST(RecoveryTest, AnUpdateLostBetweenTwoTriesIsAskedForInTheNext) {
  Settings settings = UsualSettings(1);
  settings.cohort.deadline_s = 30;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  ASSERT_TRUE(world.StartAggregator().ok());
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == 2; }));
  const UpdateAccepted first = world.Events<UpdateAccepted>().front();
  world.disk->RemoveBlob(first.blob, [](const Status&) {});
  ASSERT_TRUE(world.RunUntil([&] { return !world.Events<RoundMissed>().empty(); }));
  ASSERT_NO_FATAL_FAILURE(ReleaseToTheEnd(world));
  ASSERT_EQ(world.Events<UpdateLost>().size(), 1U);
  EXPECT_EQ(world.Events<UpdateLost>().front().client, first.header.client);
  EXPECT_EQ(world.Events<UpdateAccepted>().size(), 4U);
  EXPECT_TRUE(Replay(world.Ledger()).ok()) << Replay(world.Ledger()).status();
}

TEST(RecoveryTest, ACompletedRunIsNotRunAgain) {
  Undisturbed whole(UsualSettings(1));
  whole.world.KillAggregator();
  ASSERT_TRUE(whole.world.StartAggregator().ok());
  ASSERT_TRUE(whole.world.RunToEnd(30));
  EXPECT_TRUE(whole.world.aggregator().Outcome().ok());
  EXPECT_EQ(whole.world.Hashes(), whole.hashes);
}

TEST(RecoveryTest, ACompletedRunGoesOnWhenMoreRoundsAreAskedFor) {
  const Undisturbed longer(UsualSettings(3));
  Undisturbed run(UsualSettings(1));
  run.world.KillAggregator();
  run.world.settings.run.num_server_rounds = 3;
  ASSERT_TRUE(run.world.StartAggregator().ok());
  StartAll(run.world);
  ASSERT_TRUE(run.world.RunToEnd());
  EXPECT_TRUE(run.world.aggregator().Outcome().ok()) << run.world.aggregator().Outcome();
  EXPECT_EQ(run.world.Hashes(), longer.hashes);
}

TEST(RecoveryTest, AFolderOfAnotherRunIsRefused) {
  Undisturbed run(UsualSettings(1));
  run.world.KillAggregator();
  run.world.settings.run.seed = 12;
  const Status status = run.world.StartAggregator();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("seed"), std::string::npos) << status;
}

TEST(RecoveryTest, ALedgerWhoseEventsCannotFollowEachOtherIsNamed) {
  FakeWorld world(UsualSettings(1));
  UpdateAccepted stray;
  stray.header.round = RoundId{3};
  stray.header.client = ClientId{"alpha"};
  world.disk->owner = std::make_shared<bool>(true);
  world.disk->Append({ToDraft(stray)}, [](const Status&) {});
  const Result<RunPosition> position = Replay(world.Ledger());
  ASSERT_FALSE(position.ok());
  EXPECT_EQ(position.status().code(), Code::kDataLoss);
  EXPECT_NE(position.status().message().find("row 1"), std::string::npos);
}

}  // namespace
}  // namespace weft::testing
