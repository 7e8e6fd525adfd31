// Rounds between an AggregatorNode and ClientNodes over queues: who takes part, what closes a
// round, what is refused.

#include <algorithm>
#include <cmath>
#include <functional>

#include <gtest/gtest.h>

#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

TEST(RoundTest, ThreeClientsOfMixedRanksFinishARun) {
  FakeWorld world(UsualSettings(3));
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.StartClient("beta", 8);
  world.StartClient("gamma", 16);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok()) << world.aggregator().Outcome();
  EXPECT_EQ(world.Hashes().size(), 4U);
  world.RunFor(0.5);
  for (const char* name : {"alpha", "beta", "gamma"}) {
    EXPECT_TRUE(world.client(name).Finished());
    EXPECT_TRUE(world.client(name).Outcome().ok());
    EXPECT_EQ(world.trained(name), 3);
  }
  const std::vector<RoundOpened> opened = world.Events<RoundOpened>();
  ASSERT_EQ(opened.size(), 3U);
  ASSERT_EQ(opened[0].plan.cohort.size(), 3U);
  EXPECT_EQ(opened[0].plan.cohort[0].adapter.rank, 4);
  EXPECT_EQ(opened[0].plan.cohort[2].adapter.rank, 16);
  EXPECT_EQ(world.Events<EvalReported>().size(), 12U) << "rounds + 1 evaluations by three sites";
  EXPECT_EQ(world.Events<BestRound>().back().version, RoundId{3});
  EXPECT_EQ(world.Events<RunFinished>().back().state, kRunCompleted);
}

/// Starts everybody; ranks 4, 8, 16.
void StartAll(FakeWorld& world) {
  ASSERT_TRUE(world.StartAggregator().ok());
  world.StartClient("alpha", 4);
  world.StartClient("beta", 8);
  world.StartClient("gamma", 16);
}

std::vector<std::string> AcceptedIn(const FakeWorld& world, uint32_t round) {
  std::vector<std::string> names;
  for (const UpdateAccepted& event : world.Events<UpdateAccepted>()) {
    if (event.header.round.number == round) names.push_back(event.header.client.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

using Strings = std::vector<std::string>;

TEST(RoundTest, OrderOfArrivalChangesNoBit) {
  FakeWorld first(UsualSettings(2));
  StartAll(first);
  ASSERT_TRUE(first.RunToEnd());
  FakeWorld second(UsualSettings(2));
  second.hold_training = {"alpha"};
  ASSERT_TRUE(second.StartAggregator().ok());
  second.StartClient("gamma", 16);
  second.StartClient("beta", 8);
  second.StartClient("alpha", 4);
  ASSERT_TRUE(second.RunUntil([&] { return AcceptedIn(second, 1).size() == 2; }));
  second.ReleaseTraining();
  ASSERT_TRUE(second.RunToEnd());
  EXPECT_EQ(first.Hashes(), second.Hashes());
}

TEST(RoundTest, AMergedUpdateIsNotCountedInTheNextRoundEvenIfTheSpoolStillHasIt) {
  Settings keeping = UsualSettings(3);
  keeping.run.keep_updates = true;
  FakeWorld world(keeping);
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  FakeWorld usual(UsualSettings(3));
  StartAll(usual);
  ASSERT_TRUE(usual.RunToEnd());
  EXPECT_EQ(world.Hashes(), usual.Hashes());
  EXPECT_EQ(world.trained("alpha"), 3);
  EXPECT_EQ(world.disk->ListBlobs("spool/").size(), 9U);
  EXPECT_TRUE(usual.disk->ListBlobs("spool/").empty());
  EXPECT_EQ(world.disk->ListBlobs("state/").size(), 4U) << "each round's start is kept with it";
  EXPECT_EQ(usual.disk->ListBlobs("state/").size(), 2U);
  EXPECT_TRUE(world.Events<RoundPublished>().back().updates_kept);
  EXPECT_FALSE(usual.Events<RoundPublished>().back().updates_kept);
}

TEST(RoundTest, WhatEarlierRoundsKeptStaysWhenALaterStartKeepsNothing) {
  Settings settings = UsualSettings(4);
  settings.run.keep_updates = true;
  FakeWorld world(settings);
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundPublished>().size() == 3; }));
  world.KillAggregator();
  world.settings.run.keep_updates = false;
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.disk->ListBlobs("spool/").size(), 6U) << "of rounds 1 and 2";
  const std::vector<std::string> states = world.disk->ListBlobs("state/");
  for (const char* needed : {"state/round-0000", "state/round-0001"}) {
    EXPECT_EQ(std::count(states.begin(), states.end(), needed), 1) << needed;
  }
  EXPECT_EQ(std::count(states.begin(), states.end(), "state/round-0002"), 0);
}

TEST(RoundTest, NormsAreMeasuredAgainstTheNewestVersionsAlsoAfterARestart) {
  FakeWorld world(UsualSettings(3));
  std::map<uint32_t, std::set<double>> medians;  // by round
  world.on_admit = [&](const AdmitJob& job) {
    EXPECT_EQ(job.norm_ratio_max, 1000);
    medians[job.header.round.number].insert(job.norm_median);
    return OkStatus();
  };
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 3; }));
  world.KillAggregator();
  ASSERT_TRUE(world.StartAggregator().ok());
  ASSERT_TRUE(world.RunToEnd());
  const auto median_of = [&](uint32_t round) {
    std::vector<double> norms;
    for (const UpdateAccepted& event : world.Events<UpdateAccepted>()) {
      if (event.header.round.number == round) norms.push_back(event.update_norm);
    }
    std::sort(norms.begin(), norms.end());
    return norms.at(1);
  };
  EXPECT_EQ(medians[1], std::set<double>{0});
  EXPECT_EQ(medians[2], std::set<double>{median_of(1)});
  EXPECT_EQ(medians[3], std::set<double>{median_of(2)});
}

TEST(RoundTest, TheDeadlineClosesARoundThatHasItsQuorumAndTheStragglerIsLate) {
  Settings settings = UsualSettings(2);
  settings.cohort.quorum = 0.6;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundPublished>().size() == 2; }));
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "beta"}));
  ASSERT_EQ(world.Events<ClientDropped>().size(), 1U);
  EXPECT_EQ(world.Events<ClientDropped>()[0].client.name, "gamma");
  EXPECT_EQ(world.Events<ClientDropped>()[0].phase, "train");
  // Its training of round 1 was cancelled; what it says about it now is late.
  UpdateHeader header = world.Events<UpdateAccepted>()[0].header;
  header.client = ClientId{"gamma"};
  world.Inject("gamma", UpdateOffer{.header = header,
                                    .payload = {header.payload_sha256, header.payload_bytes}});
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.Events<UpdateLate>().size(), 1U);
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "beta"}));
  EXPECT_EQ(AcceptedIn(world, 2).size(), 3U) << "the straggler is back in the next round";
}

TEST(RoundTest, GraceAfterTheQuorumIsShorterThanTheDeadline) {
  Settings settings = UsualSettings(1);
  settings.cohort.quorum = 0.6;
  settings.cohort.grace_s = 7;
  settings.cohort.deadline_s = 600;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  const Nanos began = world.clock.Now();
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundPublished>().size() == 2; }));
  const double took = ToSeconds(world.clock.Now() - began);
  EXPECT_GE(took, 7);
  EXPECT_LE(took, 20);
}

TEST(RoundTest, ARepeatedUpdateCountsOnceAndIsAnsweredAsBefore) {
  FakeWorld world(UsualSettings(2));
  std::vector<std::pair<std::string, UpdateOffer>> offers;
  world.filter = [&](const ClientId& client, bool, const Message& message) {
    if (const auto* offer = std::get_if<UpdateOffer>(&message)) {
      offers.emplace_back(client.name, *offer);
    }
    return true;
  };
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return AcceptedIn(world, 1).size() == 2; }));
  const auto [name, offer] = offers.front();
  world.sent_to.clear();
  world.Inject(name, offer);
  world.Inject(name, offer);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundPublished>().size() == 2; }));
  world.Inject(name, offer);
  ASSERT_TRUE(world.RunToEnd());
  int good_verdicts = 0;
  for (const auto& [to, message] : world.sent_to) {
    const auto* verdict = std::get_if<UpdateVerdict>(&message);
    if (verdict == nullptr || to != name || verdict->round != RoundId{1}) continue;
    EXPECT_EQ(verdict->code, Code::kOk) << verdict->reason;
    ++good_verdicts;
  }
  EXPECT_GE(good_verdicts, 3);
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "beta", "gamma"}));
  EXPECT_TRUE(world.Events<UpdateLate>().empty());
}

TEST(RoundTest, UpdatesThatWereNotAskedForAreRefusedAndNotCounted) {
  const std::vector<std::function<void(UpdateOffer&)>> changes = {
      [](UpdateOffer& o) { o.header.round = RoundId{7}; },
      [](UpdateOffer& o) { o.header.run = RunId{"another"}; },
      [](UpdateOffer& o) { o.header.client = ClientId{"beta"}; },
      [](UpdateOffer& o) { o.header.version = RoundId{5}; },
      [](UpdateOffer& o) { o.header.base_hash = std::string(64, 'b'); },
      [](UpdateOffer& o) { o.header.spec.rank = 64; },
      [](UpdateOffer& o) { o.header.codec = "bfloat16"; },
      [](UpdateOffer& o) { o.header.num_examples = 0; },
      [](UpdateOffer& o) { o.header.train_loss = std::nan(""); },
      [](UpdateOffer& o) { o.payload.bytes = 11; },
      [](UpdateOffer& o) { o.payload.bytes = o.header.payload_bytes = uint64_t{1} << 32; }};
  for (size_t i = 0; i < changes.size(); ++i) {
    FakeWorld world(UsualSettings(1));
    world.hold_training = {"alpha", "beta", "gamma"};
    StartAll(world);
    ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 1; }));
    const RoundPlan plan = world.Events<RoundOpened>()[0].plan;
    UpdateOffer offer;
    offer.header.run = plan.run;
    offer.header.round = plan.round;
    offer.header.client = ClientId{"alpha"};
    offer.header.version = plan.version;
    offer.header.base_hash = plan.base_hash;
    offer.header.spec = plan.cohort[0].adapter;
    offer.header.codec = plan.codec;
    offer.header.num_examples = 1;
    offer.header.payload_bytes = offer.payload.bytes = 10;
    offer.header.payload_sha256 = offer.payload.sha256 = std::string(64, 'a');
    changes[i](offer);
    world.RunFor(0.1);
    world.sent_to.clear();
    world.Inject("alpha", offer);
    world.RunFor(0.5);
    bool refused = world.cut.contains("alpha");  // some are no offers at all: decoding says so
    for (const auto& [to, message] : world.sent_to) {
      const auto* verdict = std::get_if<UpdateVerdict>(&message);
      refused = refused || (verdict != nullptr && verdict->code != Code::kOk);
      EXPECT_FALSE(std::holds_alternative<ChunkRequest>(message)) << "case " << i;
    }
    EXPECT_TRUE(refused) << "case " << i;
    EXPECT_TRUE(AcceptedIn(world, 1).empty()) << "case " << i;
  }
}

TEST(RoundTest, ATrainingThatFailsIsReportedAndNobodyWaitsForIt) {
  Settings settings = UsualSettings(1);
  settings.cohort.quorum = 0.6;
  settings.cohort.deadline_s = 100000;
  FakeWorld world(settings);
  world.on_train = [](const TrainJob& job) {
    return job.client.name == "beta" ? Internal("[train] step 3: loss is nan") : OkStatus();
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd(300));
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  ASSERT_EQ(world.Events<ClientDropped>().size(), 1U);
  EXPECT_NE(world.Events<ClientDropped>()[0].reason.find("loss is nan"), std::string::npos);
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "gamma"}));
}

TEST(RoundTest, AnUpdateThatFailsAdmissionIsRefusedWithItsReason) {
  Settings settings = UsualSettings(1);
  settings.cohort.quorum = 0.6;
  FakeWorld world(settings);
  world.on_admit = [](const AdmitJob& job) {
    return job.header.client.name == "gamma" ? InvalidArgument("[admission] tensor A has a NaN")
                                             : OkStatus();
  };
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  ASSERT_EQ(world.Events<UpdateRefused>().size(), 1U);
  EXPECT_EQ(world.Events<UpdateRefused>()[0].code, "invalid-argument");
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "beta"}));
}

TEST(RoundTest, ARoundThatMissesItsQuorumIsTriedAgainWithWhatItHas) {
  Settings settings = UsualSettings(1);
  settings.cohort.deadline_s = 50;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 2; }));
  ASSERT_EQ(world.Events<RoundMissed>().size(), 1U);
  EXPECT_NE(world.Events<RoundMissed>()[0].reason.find("gamma"), std::string::npos);
  world.ReleaseTraining();
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_EQ(world.Events<RoundOpened>()[1].attempt, 2U);
  EXPECT_EQ(AcceptedIn(world, 1), (Strings{"alpha", "beta", "gamma"}));
  EXPECT_EQ(world.trained("alpha"), 1) << "an accepted update serves the next try as well";
}

TEST(RoundTest, ARunWhoseRoundMissesItsQuorumTooOftenFailsAndSaysWhy) {
  Settings settings = UsualSettings(1);
  settings.cohort.deadline_s = 50;
  settings.cohort.round_retries = 1;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_EQ(world.aggregator().Outcome().code(), Code::kDeadlineExceeded);
  EXPECT_NE(world.aggregator().Outcome().message().find("quorum"), std::string::npos);
  EXPECT_EQ(world.Events<RoundMissed>().size(), 2U);
  EXPECT_EQ(world.Events<RunFinished>().back().state, kRunFailed);
  EXPECT_FALSE(world.client("alpha").Outcome().ok());
}

TEST(RoundTest, AClientThatDiesIsDroppedLongBeforeTheDeadline) {
  Settings settings = UsualSettings(2);
  settings.cohort.quorum = 0.6;
  settings.cohort.deadline_s = 100000;
  settings.cohort.min_available_nodes = 2;
  FakeWorld world(settings);
  world.hold_training = {"gamma"};
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return AcceptedIn(world, 1).size() == 2; }));
  world.KillClient("gamma");
  ASSERT_TRUE(world.RunToEnd(600));
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_FALSE(world.Events<MemberGone>().empty());
  EXPECT_NE(world.Events<ClientDropped>()[0].reason.find("nothing heard"), std::string::npos);
  EXPECT_EQ(world.Events<RoundOpened>()[1].plan.cohort.size(), 2U);
}

TEST(RoundTest, AClientKilledDuringItsUploadComesBackAndResumesWithoutTrainingAgain) {
  FakeWorld world(UsualSettings(1));
  world.payload_bytes = 6 * 1024 * 1024;
  Settings& settings = world.settings;
  settings.adapter.modules_to_save = {
      "lm_head"};  // no bound from shapes, so that payloads may be large
  int chunks = 0;
  uint64_t resumed_at = 0;
  bool dead = false;
  world.filter = [&](const ClientId& client, bool to_aggregator, const Message& message) {
    if (client.name != "beta") return true;
    if (to_aggregator && std::holds_alternative<Chunk>(message)) ++chunks;
    if (const auto* request = std::get_if<ChunkRequest>(&message); request && !to_aggregator) {
      if (dead && resumed_at == 0) resumed_at = request->first;
    }
    return true;
  };
  StartAll(world);
  ASSERT_TRUE(world.RunUntil([&] { return chunks >= 3; }));
  world.KillClient("beta");
  dead = true;
  world.RunFor(8);
  world.StartClient("beta", 8);
  ASSERT_TRUE(world.RunToEnd());
  EXPECT_TRUE(world.aggregator().Outcome().ok());
  EXPECT_EQ(world.trained("beta"), 1);
  EXPECT_GE(resumed_at, 2U) << "chunks that were on disk are not pulled again";
  EXPECT_EQ(AcceptedIn(world, 1).size(), 3U);
}

TEST(RoundTest, LostMessagesDelayARunAndChangeNoBit) {
  FakeWorld calm(UsualSettings(3));
  StartAll(calm);
  ASSERT_TRUE(calm.RunToEnd());
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    FakeWorld rough(UsualSettings(3));
    RandomStream luck(seed);
    rough.filter = [&](const ClientId&, bool, const Message&) { return luck.Uniform() > 0.15; };
    StartAll(rough);
    ASSERT_TRUE(rough.RunToEnd()) << "seed " << seed;
    ASSERT_TRUE(rough.aggregator().Outcome().ok()) << seed << rough.aggregator().Outcome();
    EXPECT_EQ(rough.Hashes(), calm.Hashes()) << "seed " << seed;
  }
}

TEST(RoundTest, ASampledCohortDependsOnTheSeedAlone) {
  Settings settings = UsualSettings(4);
  settings.cohort.fraction_train = 0.5;
  settings.cohort.min_train_nodes = 2;
  FakeWorld world(settings);
  StartAll(world);
  ASSERT_TRUE(world.RunToEnd());
  FakeWorld again(settings);
  ASSERT_TRUE(again.StartAggregator().ok());
  again.StartClient("gamma", 16);
  again.StartClient("alpha", 4);
  again.StartClient("beta", 8);
  ASSERT_TRUE(again.RunToEnd());
  EXPECT_EQ(world.Hashes(), again.Hashes());
  for (const RoundOpened& event : world.Events<RoundOpened>()) {
    EXPECT_EQ(event.plan.cohort.size(), 2U);
  }
}

}  // namespace
}  // namespace weft::testing
