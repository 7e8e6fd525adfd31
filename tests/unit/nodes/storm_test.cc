// The nodes in storms drawn from seeds: processes die and come back, messages are lost, repeated
// and replayed from long ago, training hangs and fails. Whatever happens, the ledger keeps the
// rules of sim/invariants.h, the run ends, and where nobody is lost for good its result is the calm
// run's.

#include <algorithm>
#include <functional>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "sim/invariants.h"
#include "tests/unit/nodes/fake_world.h"
#include "tests/unit/nodes/usual_settings.h"

namespace weft::testing {
namespace {

const std::vector<std::string> kNames = {"alpha", "beta", "gamma"};

int64_t RankOf(const std::string& name) { return name == "alpha" ? 4 : name == "beta" ? 8 : 16; }

class Storm {
 public:
  Storm(Settings settings, uint64_t seed)
      : world_(std::move(settings)), luck_(RandomStream::Derive(seed, {"storm"})) {
    world_.filter = [this](const ClientId& client, bool up, const Message& message) {
      if (up && past_.size() < 200) past_.emplace_back(client.name, message);
      return luck_.Uniform() >= loss_;
    };
    world_.on_train = [this](const TrainJob&) -> Status {
      if (luck_.Uniform() < failing_) return Internal("[train] step 1: the loss is nan");
      return OkStatus();
    };
  }

  /// Bad weather, then a calm in which everybody is there.
  void Rage(int gusts, double failing) {
    EXPECT_TRUE(world_.StartAggregator().ok());
    for (const std::string& name : kNames) world_.StartClient(name, RankOf(name));
    failing_ = failing;
    for (int i = 0; i < gusts && !Over(); ++i) Gust();
    loss_ = 0;
    failing_ = 0;
    if (!world_.AggregatorRuns()) KillOrStartAggregator();
    world_.ReleaseTraining();
    for (const std::string& name : kNames) {
      if (down_.contains(name)) world_.StartClient(name, RankOf(name));
    }
  }

  FakeWorld& world() { return world_; }
  [[nodiscard]] bool Over() { return world_.AggregatorRuns() && world_.aggregator().Finished(); }

 private:
  const std::string& AnyName() { return kNames[luck_.Below(kNames.size())]; }

  void Gust() {
    switch (luck_.Below(9)) {
      case 0:
        loss_ = 0.3 * luck_.Uniform();
        break;
      case 1:
        KillOrStartClient(AnyName());
        break;
      case 2:
        KillOrStartAggregator();
        break;
      case 3:
        world_.hold_training.insert(AnyName());
        break;
      case 4:
        world_.ReleaseTraining();
        break;
      case 5:
        Replay();
        break;
      default:
        break;
    }
    world_.RunFor(3 * luck_.Uniform());
  }

  void KillOrStartClient(const std::string& name) {
    if (down_.erase(name) > 0) return world_.StartClient(name, RankOf(name));
    world_.KillClient(name);
    down_.insert(name);
  }

  void KillOrStartAggregator() {
    if (world_.AggregatorRuns()) return world_.KillAggregator();
    EXPECT_TRUE(world_.StartAggregator().ok());
  }

  // Something a client once said, again: offers of rounds that are over, chunks, heartbeats.
  void Replay() {
    for (int i = 0; i < 5 && !past_.empty(); ++i) {
      const auto& [name, message] = past_[luck_.Below(past_.size())];
      world_.Inject(name, message);
    }
  }

  FakeWorld world_;
  RandomStream luck_;
  double loss_ = 0;
  double failing_ = 0;
  std::set<std::string> down_;
  std::vector<std::pair<std::string, Message>> past_;
};

Settings Patient(int64_t rounds) {
  Settings settings = UsualSettings(rounds);
  settings.cohort.round_retries = 1000;
  settings.cohort.join_deadline_s = 0;
  settings.cohort.deadline_s = 60;
  return settings;
}

std::vector<std::string> CalmHashes(const Settings& settings) {
  FakeWorld world(settings);
  EXPECT_TRUE(world.StartAggregator().ok());
  for (const std::string& name : kNames) world.StartClient(name, RankOf(name));
  EXPECT_TRUE(world.RunToEnd());
  return world.Hashes();
}

TEST(StormTest, WhateverHappensTheResultIsTheCalmRuns) {
  const Settings settings = Patient(4);
  const std::vector<std::string> calm = CalmHashes(settings);
  for (uint64_t seed = 1; seed <= 120; ++seed) {
    Storm storm(settings, seed);
    storm.Rage(60, 0.1);
    ASSERT_TRUE(storm.world().RunToEnd()) << "seed " << seed;
    const Status outcome = storm.world().aggregator().Outcome();
    ASSERT_TRUE(outcome.ok()) << "seed " << seed << ": " << outcome;
    EXPECT_EQ(storm.world().Hashes(), calm) << "seed " << seed;
    const Status rules = sim::CheckRunLedger(storm.world().Ledger(), settings);
    EXPECT_TRUE(rules.ok()) << "seed " << seed << ": " << rules;
  }
}

TEST(StormTest, ImpatientRunsEndByTheirRulesAndKeepThem) {
  Settings settings = UsualSettings(4);
  settings.cohort.quorum = 0.6;
  settings.cohort.deadline_s = 15;
  settings.cohort.grace_s = 4;
  settings.cohort.round_retries = 2;
  settings.cohort.min_available_nodes = 2;
  settings.cohort.min_train_nodes = 2;
  settings.cohort.join_deadline_s = 30;
  settings.server.gone_after_s = 6;
  settings.server.heartbeat_s = 1;
  int completed = 0;
  for (uint64_t seed = 1001; seed <= 1100; ++seed) {
    Storm storm(settings, seed);
    storm.Rage(40, 0.2);
    ASSERT_TRUE(storm.world().RunToEnd(3600)) << "seed " << seed << ": it must end";
    const Status outcome = storm.world().aggregator().Outcome();
    completed += outcome.ok();
    if (!outcome.ok()) {
      EXPECT_EQ(outcome.code(), Code::kDeadlineExceeded) << "seed " << seed << ": " << outcome;
    }
    const Status rules = sim::CheckRunLedger(storm.world().Ledger(), settings);
    EXPECT_TRUE(rules.ok()) << "seed " << seed << ": " << rules;
  }
  EXPECT_GT(completed, 20);
}

TEST(StormTest, EveryOrderInWhichClientsDeliverGivesTheSameBits) {
  const Settings settings = Patient(2);
  const std::vector<std::string> calm = CalmHashes(settings);
  std::vector<std::string> order = kNames;
  do {
    FakeWorld world(settings);
    for (const std::string& name : kNames) world.hold_training.insert(name);
    ASSERT_TRUE(world.StartAggregator().ok());
    for (const std::string& name : order) world.StartClient(name, RankOf(name));
    // One after the other: the held job of a client that is killed goes, its next one runs.
    for (const std::string& name : order) {
      const size_t before = world.Events<UpdateAccepted>().size();
      ASSERT_TRUE(world.RunUntil([&] { return world.Events<RoundOpened>().size() == 1; }));
      world.hold_training.erase(name);
      world.KillClient(name);
      world.RunFor(1);
      world.StartClient(name, RankOf(name));
      ASSERT_TRUE(
          world.RunUntil([&] { return world.Events<UpdateAccepted>().size() == before + 1; }));
      EXPECT_EQ(world.Events<UpdateAccepted>().back().header.client.name, name);
    }
    ASSERT_TRUE(world.RunToEnd());
    EXPECT_EQ(world.Hashes(), calm) << order[0] << order[1] << order[2];
  } while (std::next_permutation(order.begin(), order.end()));
}

}  // namespace
}  // namespace weft::testing
