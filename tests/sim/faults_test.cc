// Federations in which things go wrong: whatever does, the run ends, its rules hold (they are
// checked after every acknowledgement, see sim/invariants.h), and faults that lose no participant
// change no bit of the adapter.

#include "sim/faults.h"

#include "aggregator/certificate_check.h"
#include "common/base/str.h"
#include "common/runtime/run_verify.h"
#include "tests/sim/small_federation.h"

namespace weft::sim {
namespace {

class FaultsTest : public SmallFederation {
 protected:
  static FaultPlan OneCrash(const ClientId& node, double at, double down) {
    FaultPlan plan;
    plan.crashes = {{node, Seconds(at), Seconds(down)}};
    return plan;
  }
};

TEST_F(FaultsTest, DrawnFaultsOfEveryKindChangeNoBit) {
  const std::vector<std::string> calm = Hashes(Patient());
  FaultBounds bounds;
  bounds.span_s = 15;  // an undisturbed run takes about that long
  uint64_t crashes = 0;
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    const FaultPlan plan = DrawFaultPlan(seed, Names(), bounds);
    const Result<SimulationReport> report = Run(Patient(), plan);
    ASSERT_TRUE(report.ok()) << plan.Text() << report.status();
    EXPECT_EQ(report->adapter_sha256, calm) << plan.Text();
    crashes += report->crashes;
  }
  EXPECT_GT(crashes, 24u) << "the plans must bite";
}

// Without an evaluation there is no best version, and old states go.
TEST_F(FaultsTest, RunsThatNobodyEvaluatesAreHeldToTheSameRules) {
  Settings settings = Patient();
  settings.sim.eval_rows = 0;
  settings.cohort.fraction_evaluate = 0;
  const std::vector<std::string> calm = Hashes(settings);
  FaultBounds bounds;
  bounds.span_s = 15;
  for (uint64_t seed = 301; seed <= 306; ++seed) {
    EXPECT_EQ(Hashes(settings, DrawFaultPlan(seed, Names(), bounds)), calm) << seed;
  }
}

TEST_F(FaultsTest, WhatRoundsKeepSurvivesCrashesAndIsMergedAgain) {
  const std::vector<std::string> calm = Hashes(Patient());
  FaultBounds bounds;
  bounds.span_s = 15;
  const weft::testing::TempFolder out;
  for (uint64_t seed = 201; seed <= 206; ++seed) {
    SimulationOptions options;
    options.settings = Patient();
    options.settings.run.keep_updates = true;
    options.faults = DrawFaultPlan(seed, Names(), bounds);
    options.out_dir = (out.path() / Str(seed)).string();
    const Result<SimulationReport> report = Simulate(options);
    ASSERT_TRUE(report.ok()) << options.faults->Text() << report.status();
    EXPECT_EQ(report->adapter_sha256, calm);
    const Result<VerifyReport> verified = VerifyRun(options.out_dir, "", CheckKeptRound);
    ASSERT_TRUE(verified.ok()) << options.faults->Text() << verified.status();
    EXPECT_EQ(verified->certificates_recomputed, 3u);
    EXPECT_EQ(verified->rounds_without_updates, 0u);
  }
}

TEST_F(FaultsTest, TheOtherStrategiesStandThemAsWell) {
  FaultBounds bounds;
  bounds.span_s = 15;
  for (const char* strategy : {"fedavg", "flora"}) {
    Settings settings = Patient(strategy);
    settings.train.keep_optimizer = std::string(strategy) == "fedavg";
    const std::vector<std::string> calm = Hashes(settings);
    for (uint64_t seed = 101; seed <= 106; ++seed) {
      EXPECT_EQ(Hashes(settings, DrawFaultPlan(seed, Names(), bounds)), calm)
          << strategy << " " << seed;
    }
  }
}

// An attacker that comes back asks its colluders again, and knows the same.
TEST_F(FaultsTest, HostileClientsShipTheSameWhateverDies) {
  FaultBounds bounds;
  bounds.span_s = 15;
  for (const char* attack : {"sign-flip", "inner-product"}) {
    Settings settings = Patient();
    settings.sim.attack = attack;
    settings.sim.attackers = 2;
    settings.sim.attack_scale = 1;
    const std::vector<std::string> calm = Hashes(settings);
    EXPECT_NE(calm, Hashes(Patient())) << attack;
    for (uint64_t seed = 201; seed <= 206; ++seed) {
      EXPECT_EQ(Hashes(settings, DrawFaultPlan(seed, Names(), bounds)), calm)
          << attack << " " << seed;
    }
  }
}

// What an update leaves out is in the client's state, and which update was merged in the ledger: a
// crash of either, before or after the verdict, neither loses it nor counts it twice.
TEST_F(FaultsTest, WhatUpdatesLeaveOutOutlivesCrashesOfBothSides) {
  Settings settings = Patient("fedavg");
  settings.sim.ranks = {4};
  settings.wire.codec = "int8";
  settings.wire.delta = true;
  const std::vector<std::string> all = Hashes(settings);
  settings.wire.top_k = 0.2;
  const std::vector<std::string> calm = Hashes(settings);
  EXPECT_NE(calm, all);
  settings.wire.error_feedback = false;
  EXPECT_EQ(Hashes(settings)[1], calm[1]) << "nothing is owed yet";
  EXPECT_NE(Hashes(settings)[2], calm[2]) << "and then it is";
  settings.wire.error_feedback = true;
  FaultBounds bounds;
  bounds.span_s = 15;
  for (uint64_t seed = 201; seed <= 212; ++seed) {
    EXPECT_EQ(Hashes(settings, DrawFaultPlan(seed, Names(), bounds)), calm) << seed;
  }
  for (double at = 0.1; at < 9; at += 0.9) {
    EXPECT_EQ(Hashes(settings, OneCrash(ClientId{"client-1"}, at, 3)), calm) << at << " s";
    EXPECT_EQ(Hashes(settings, OneCrash(kAggregator, at, 2)), calm) << at << " s";
  }
}

TEST_F(FaultsTest, AnAggregatorThatDiesAtAnyMomentOfARoundGoesOn) {
  const std::vector<std::string> calm = Hashes(Patient());
  for (double at = 0.05; at < 9; at += 0.45) {
    EXPECT_EQ(Hashes(Patient(), OneCrash(kAggregator, at, 2)), calm) << "killed at " << at << " s";
  }
}

TEST_F(FaultsTest, AClientThatDiesAtAnyMomentOfARoundDelivers) {
  const std::vector<std::string> calm = Hashes(Patient());
  for (double at = 0.1; at < 9; at += 0.7) {
    EXPECT_EQ(Hashes(Patient(), OneCrash(ClientId{"client-1"}, at, 3)), calm)
        << "killed at " << at << " s";
  }
}

TEST_F(FaultsTest, MessagesThatOvertakeAndRepeatEachOtherChangeNoBit) {
  const std::vector<std::string> calm = Hashes(Patient());
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    FaultPlan plan;
    plan.seed = seed;
    plan.links = {.loss = 0, .repeat = 0.5, .reorder = 0.5, .hold_max = Seconds(1)};
    EXPECT_EQ(Hashes(Patient(), plan), calm) << seed;
  }
}

TEST_F(FaultsTest, APartitionIsWaitedOutWithinThePatienceAndBeyondIt) {
  const std::vector<std::string> calm = Hashes(Patient());
  for (const double length : {5.0, 40.0}) {  // gone_after_s is 15
    FaultPlan plan;
    plan.partitions = {{Seconds(2), Seconds(2 + length), Names()}};
    const Result<SimulationReport> report = Run(Patient(), plan);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_EQ(report->adapter_sha256, calm) << length;
    EXPECT_GT(report->virtual_s, length);
  }
}

TEST_F(FaultsTest, AClientThatStaysAwayIsDoneWithoutWhereTheQuorumAllows) {
  Settings settings = Patient();
  settings.cohort.quorum = 0.6;
  settings.cohort.min_available_nodes = 2;
  settings.cohort.min_train_nodes = 2;
  const Result<SimulationReport> report = Run(settings, OneCrash(ClientId{"client-2"}, 2.0, 1e6));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->run.state, "finished:completed");
  EXPECT_EQ(report->run.rounds.back().accepted, 2u);
}

TEST_F(FaultsTest, ARunThatCannotGoOnEndsByItsRulesAndSaysWhy) {
  Settings settings = Patient();
  settings.cohort.round_retries = 1;
  settings.cohort.join_deadline_s = 60;
  const Status status = Run(settings, OneCrash(ClientId{"client-2"}, 2.0, 1e6)).status();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.code(), Code::kDeadlineExceeded) << status;
  EXPECT_NE(status.message().find("2 of the 3 members"), std::string::npos) << status;
  EXPECT_NE(status.message().find("missing: client-2."), std::string::npos) << status;
}

TEST_F(FaultsTest, WithoutThePatienceOfTheOthersEveryDrawnRunStillEndsByItsRules) {
  Settings settings = Patient();
  settings.server.gone_after_s = 4;
  settings.cohort.deadline_s = 12;
  settings.cohort.quorum = 0.6;
  settings.cohort.grace_s = 3;
  settings.cohort.round_retries = 2;
  settings.cohort.min_available_nodes = 2;
  settings.cohort.min_train_nodes = 2;
  settings.cohort.join_deadline_s = 40;
  FaultBounds bounds;
  bounds.span_s = 20;
  bounds.loss_max = 0.5;
  bounds.partition_max_s = 40;
  bounds.down_max_s = 30;
  bounds.client_crashes_max = 6;
  int completed = 0;
  for (uint64_t seed = 201; seed <= 216; ++seed) {
    const FaultPlan plan = DrawFaultPlan(seed, Names(), bounds);
    const Result<SimulationReport> report = Run(settings, plan);
    completed += report.ok();
    // By its rules: a deadline passed without enough members or updates. Never a broken rule.
    if (!report.ok()) {
      EXPECT_EQ(report.status().code(), Code::kDeadlineExceeded) << plan.Text() << report.status();
    }
  }
  EXPECT_GT(completed, 0);
}

TEST(FaultPlanTest, APlanIsItsSeeds) {
  const std::vector<ClientId> names = {{"a"}, {"b"}};
  EXPECT_EQ(DrawFaultPlan(7, names).Text(), DrawFaultPlan(7, names).Text());
  EXPECT_NE(DrawFaultPlan(7, names).Text(), DrawFaultPlan(8, names).Text());
}

TEST(FaultPlanTest, DrawnFaultsKeepWithinTheirBounds) {
  const std::vector<ClientId> names = {{"a"}, {"b"}, {"c"}};
  FaultBounds bounds;
  bounds.span_s = 30;
  size_t aggregator_crashes = 0, client_crashes = 0, partitions = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    const FaultPlan plan = DrawFaultPlan(seed, names, bounds);
    EXPECT_LE(plan.links.loss, bounds.loss_max);
    EXPECT_LE(plan.links.repeat, bounds.repeat_max);
    EXPECT_LE(plan.links.reorder, bounds.reorder_max);
    Nanos last{0};
    for (const Crash& crash : plan.crashes) {
      EXPECT_GE(crash.at, last);
      last = crash.at;
      EXPECT_LE(crash.at, Seconds(30));
      EXPECT_GT(crash.down, Nanos{0});
      EXPECT_LE(crash.down, Seconds(bounds.down_max_s + 0.1));
      (crash.node == kAggregator ? aggregator_crashes : client_crashes) += 1;
    }
    for (const Partition& partition : plan.partitions) {
      EXPECT_LE(partition.end - partition.begin, Seconds(bounds.partition_max_s));
    }
    partitions += plan.partitions.size();
  }
  // Means of 1, 2 and 1 a plan.
  EXPECT_NEAR(static_cast<double>(aggregator_crashes) / 200, 1, 0.25);
  EXPECT_NEAR(static_cast<double>(client_crashes) / 200, 2, 0.4);
  EXPECT_NEAR(static_cast<double>(partitions) / 200, 1, 0.25);
}

TEST(WeatherTest, SharesOfMessagesAreLostRepeatedAndHeldAsThePlanSays) {
  EventQueue queue;
  FaultPlan plan;
  plan.links = {.loss = 0.2, .repeat = 0.3, .reorder = 0.4, .hold_max = Seconds(0.5)};
  const Weather weather = WeatherOf(plan, queue);
  int lost = 0, twice = 0, held = 0, copies = 0;
  for (int i = 0; i < 5000; ++i) {
    const std::vector<Nanos> delays = weather(ClientId{"a"}, true);
    lost += delays.empty();
    twice += delays.size() == 2;
    for (const Nanos delay : delays) {
      ++copies;
      held += delay > Nanos{0};
      EXPECT_LE(delay, Seconds(0.5));
    }
  }
  EXPECT_NEAR(lost / 5000.0, 0.2, 0.03);
  EXPECT_NEAR(twice / 4000.0, 0.3, 0.04);
  EXPECT_NEAR(held / static_cast<double>(copies), 0.4, 0.03);
}

TEST(WeatherTest, SomeMessagesTakeVeryLong) {
  EventQueue queue;
  FaultPlan plan;
  plan.links = {.tail = 0.5, .tail_median = Seconds(2)};
  const Weather weather = WeatherOf(plan, queue);
  std::vector<Nanos> late;
  for (int i = 0; i < 4000; ++i) {
    for (const Nanos delay : weather(ClientId{"a"}, false)) {
      if (delay > Nanos{0}) late.push_back(delay);
    }
  }
  std::sort(late.begin(), late.end());
  EXPECT_NEAR(static_cast<double>(late.size()), 2000, 120);
  EXPECT_NEAR(ToSeconds(late[late.size() / 2]), 2, 0.2);
  EXPECT_NEAR(ToSeconds(late[late.size() * 99 / 100]), 20, 6) << "e^2.33 times the median";
}

TEST(WeatherTest, APartitionLosesEverythingOfItsClientsWhileItLasts) {
  EventQueue queue;
  FaultPlan plan;
  plan.partitions = {{Seconds(1), Seconds(2), {ClientId{"a"}}},
                     {Seconds(3), Seconds(4), {ClientId{"a"}}, true, false}};
  const Weather weather = WeatherOf(plan, queue);
  const auto passes = [&](double at, const char* client, bool up = true) {
    queue.At(Seconds(at), [] {});
    while (queue.RunOne()) {
    }
    return !weather(ClientId{client}, up).empty();
  };
  EXPECT_TRUE(passes(0.99, "a"));
  EXPECT_FALSE(passes(1.0, "a"));
  EXPECT_TRUE(passes(1.5, "b"));
  EXPECT_FALSE(passes(1.99, "a"));
  EXPECT_FALSE(passes(1.99, "a", false));
  EXPECT_TRUE(passes(2.0, "a"));
  EXPECT_FALSE(passes(3.5, "a", true)) << "it hears, and is not heard";
  EXPECT_TRUE(passes(3.5, "a", false));
}

}  // namespace
}  // namespace weft::sim
