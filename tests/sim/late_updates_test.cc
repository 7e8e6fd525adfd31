// Federations in which rounds do not wait for everybody: sites of different speed, few updates a
// round, some that join late, die or are cut off. In every schedule each update counts once and by
// its planned weight (sim/invariants.h checks it at every acknowledgement).

#include "aggregator/certificate_check.h"
#include "common/base/str.h"
#include "common/runtime/run_verify.h"
#include "tests/sim/small_federation.h"

namespace weft::sim {
namespace {

class LateUpdatesTest : public SmallFederation {
 protected:
  static Settings Buffered(const std::string& strategy = "exact-svd") {
    Settings settings = Patient(strategy);
    settings.run.num_server_rounds = 6;
    settings.sim.clients = 6;
    settings.sim.ranks = {2, 4, 6};
    settings.sim.step_cost_spread = 1;
    settings.cohort.buffer = 2;
    settings.cohort.max_staleness = 3;
    settings.cohort.fraction_train = 0.7;
    settings.cohort.min_train_nodes = 1;
    settings.cohort.min_available_nodes = 3;
    return settings;
  }

  static std::vector<ClientId> Six() {
    std::vector<ClientId> names;
    for (int i = 0; i < 6; ++i) names.push_back({Str("client-", i)});
    return names;
  }

  // Faults of the seed, and one site that is not to be reached until the run is well under way.
  static FaultPlan Drawn(uint64_t seed) {
    FaultBounds bounds;
    bounds.span_s = 15;
    FaultPlan plan = DrawFaultPlan(seed, Six(), bounds);
    const double joins_at = 4 + static_cast<double>(seed % 5);
    plan.partitions.push_back({Nanos{0}, Seconds(joins_at), {Six()[seed % 6]}});
    return plan;
  }

  static uint64_t CountLate(const RunView& run) {
    uint64_t late = 0;
    for (const RoundRow& round : run.rounds) {
      for (const ClientRow& client : round.clients) late += client.rounds_late > 0 ? 1 : 0;
    }
    return late;
  }
};

TEST_F(LateUpdatesTest, WeightsAddUpToThePlanInEverySchedule) {
  uint64_t late = 0;
  uint64_t crashes = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Settings settings = Buffered(seed % 4 == 0 ? "flora" : "exact-svd");
    settings.run.seed = seed;
    settings.cohort.buffer = 1 + static_cast<int64_t>(seed % 3);
    settings.cohort.weighting = seed % 2 == 0 ? "examples" : "tokens";
    const FaultPlan plan = Drawn(seed);
    const Result<SimulationReport> report = Run(settings, plan);
    ASSERT_TRUE(report.ok()) << seed << plan.Text() << report.status();
    EXPECT_EQ(report->adapter_sha256.size(), 7u) << seed;
    late += CountLate(report->run);
    crashes += report->crashes;
  }
  EXPECT_GT(late, 200u) << "the schedules must bite";
  EXPECT_GT(crashes, 200u);
}

TEST_F(LateUpdatesTest, TheSameScheduleGivesTheSameBitsWithAnyNumberOfWorkers) {
  for (const char* strategy : {"exact-svd", "fedask", "flora", "florist"}) {
    Settings settings = Buffered(strategy);
    const std::vector<std::string> one = Hashes(settings);
    EXPECT_EQ(Hashes(settings), one) << strategy;
    settings.sim.workers = 3;
    EXPECT_EQ(Hashes(settings), one) << strategy;
    settings.cohort.staleness_exponent = 1;
    EXPECT_NE(Hashes(settings), one) << strategy;
  }
}

TEST_F(LateUpdatesTest, WhatWasMergedLateIsMergedAgainFromWhatIsKept) {
  const weft::testing::TempFolder out;
  for (const char* strategy : {"exact-svd", "flora"}) {
    SimulationOptions options;
    options.settings = Buffered(strategy);
    options.settings.run.keep_updates = true;
    options.settings.wire.delta = true;
    options.settings.wire.codec = "int8";
    options.out_dir = (out.path() / strategy).string();
    const Result<SimulationReport> report = Simulate(options);
    ASSERT_TRUE(report.ok()) << report.status();
    EXPECT_GT(CountLate(report->run), 0u);
    const Result<VerifyReport> verified = VerifyRun(options.out_dir, "", CheckKeptRound);
    ASSERT_TRUE(verified.ok()) << verified.status();
    EXPECT_EQ(verified->certificates_recomputed, 6u);
  }
}

TEST_F(LateUpdatesTest, NotWaitingForTheSlowTakesLessTime) {
  Settings waits = Buffered();
  waits.cohort.buffer = 0;
  waits.cohort.max_staleness = 0;
  const Result<SimulationReport> slow = Run(waits);
  const Result<SimulationReport> fast = Run(Buffered());
  ASSERT_TRUE(slow.ok() && fast.ok());
  EXPECT_LT(fast->virtual_s, 0.7 * slow->virtual_s);
}

}  // namespace
}  // namespace weft::sim
