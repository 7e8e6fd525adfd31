// Cohorts over many draws: sizes, fairness, independence; and plans for drawn specs and layers.

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include <gtest/gtest.h>

#include "aggregator/cohort.h"
#include "common/adapters/adapter.h"
#include "common/base/random.h"
#include "common/base/str.h"

namespace weft {
namespace {

std::vector<ClientId> Clients(size_t count) {
  std::vector<ClientId> clients;
  for (size_t i = 0; i < count; ++i) clients.push_back({Str("c", i + 1000)});
  return clients;
}

TEST(CohortPropertiesTest, EveryDrawIsASortedSetOfTheRightSizeThatHoldsWhoDelivered) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"cohort-properties"});
    const std::vector<ClientId> all = Clients(1 + draw.Below(40));
    CohortSettings cohort;
    cohort.fraction_train = draw.Uniform();
    cohort.min_train_nodes = static_cast<int64_t>(draw.Below(10));
    std::vector<ClientId> already;
    for (const ClientId& client : all) {
      if (draw.Below(8) == 0) already.push_back(client);
    }
    const std::vector<ClientId> drawn = SampleCohort(
        cohort, seed, RoundId{3}, 1 + static_cast<uint32_t>(draw.Below(4)), all, already);
    const size_t size = CohortSize(cohort, all.size());
    EXPECT_EQ(drawn.size(), std::max(size, already.size())) << seed;
    EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    EXPECT_EQ(std::set<ClientId>(drawn.begin(), drawn.end()).size(), drawn.size());
    EXPECT_TRUE(std::includes(all.begin(), all.end(), drawn.begin(), drawn.end()));
    EXPECT_TRUE(std::includes(drawn.begin(), drawn.end(), already.begin(), already.end()));
    // Bounds of the size itself.
    EXPECT_GE(size, std::min<size_t>(all.size(), static_cast<size_t>(std::max<int64_t>(
                                                     cohort.min_train_nodes, 1))));
    EXPECT_LE(size, all.size());
    EXPECT_GE(static_cast<double>(size) + 1e-6,
              cohort.fraction_train * static_cast<double>(all.size()));
  }
}

TEST(CohortPropertiesTest, EveryClientIsDrawnAboutEquallyOftenAndEveryPairToo) {
  CohortSettings cohort;
  cohort.fraction_train = 0.3;
  const std::vector<ClientId> all = Clients(10);
  std::map<ClientId, int> single;
  std::map<std::pair<ClientId, ClientId>, int> pairs;
  constexpr int kRounds = 3000;
  for (uint32_t round = 1; round <= kRounds; ++round) {
    const auto drawn = SampleCohort(cohort, 11, RoundId{round}, 1, all, {});
    for (size_t i = 0; i < drawn.size(); ++i) {
      ++single[drawn[i]];
      for (size_t j = i + 1; j < drawn.size(); ++j) ++pairs[{drawn[i], drawn[j]}];
    }
  }
  // Binomial with p = 3/10 and 1/15: five deviations.
  for (const auto& [client, count] : single) {
    EXPECT_NEAR(count, 0.3 * kRounds, 5 * std::sqrt(kRounds * 0.3 * 0.7)) << client;
  }
  ASSERT_EQ(pairs.size(), 45u);
  for (const auto& [pair, count] : pairs) {
    EXPECT_NEAR(count, kRounds / 15.0, 5 * std::sqrt(kRounds / 15.0)) << pair.first << pair.second;
  }
}

TEST(CohortPropertiesTest, WhoComesOrGoesDoesNotReshuffleOtherSeedsOrRounds) {
  // The draw depends on the seed, the round, the try and the list of who is there.
  CohortSettings cohort;
  cohort.fraction_train = 0.5;
  const std::vector<ClientId> all = Clients(12);
  const auto drawn = SampleCohort(cohort, 1, RoundId{1}, 1, all, {});
  EXPECT_NE(drawn, SampleCohort(cohort, 2, RoundId{1}, 1, all, {}));
  EXPECT_NE(drawn, SampleCohort(cohort, 1, RoundId{2}, 1, all, {}));
  EXPECT_EQ(drawn, SampleCohort(cohort, 1, RoundId{1}, 1, all, {}));
}

TEST(CohortPropertiesTest, EvaluatorsAreDrawnApartFromTheCohort) {
  CohortSettings cohort;
  cohort.fraction_train = 0.5;
  cohort.fraction_evaluate = 0.5;
  const std::vector<ClientId> all = Clients(16);
  int same = 0;
  for (uint32_t round = 1; round <= 50; ++round) {
    const auto evaluators = SampleEvaluators(cohort, 1, RoundId{round}, all);
    EXPECT_EQ(evaluators.size(), 8u);
    EXPECT_TRUE(std::is_sorted(evaluators.begin(), evaluators.end()));
    same += evaluators == SampleCohort(cohort, 1, RoundId{round}, 1, all, {});
  }
  EXPECT_EQ(same, 0);
}

TEST(CohortPropertiesTest, ARankIsNeverMoreThanWasOfferedNorThanTheGlobalOne) {
  AdapterSpec adapter;
  adapter.rank = 8;
  for (int64_t offered = 0; offered <= 20; ++offered) {
    for (int64_t global = 0; global <= 20; ++global) {
      Capabilities offer;
      offer.rank_max = offered;
      const int64_t rank = RankOfClient(offer, adapter, global);
      EXPECT_GE(rank, 1);
      EXPECT_LE(rank, offered > 0 ? offered : adapter.rank);
      EXPECT_LE(rank, global > 0 ? global : rank);
    }
  }
}

TEST(CohortPropertiesTest, SpecsForDrawnLayersFitThemAndKeepTheScalingOfPlainOnes) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"spec-at-rank"});
    std::vector<LinearSite> sites;
    for (int i = 0; i < 6; ++i) {
      sites.push_back({Str("l.", i, i % 2 == 0 ? ".q_proj" : ".up_proj"),
                       static_cast<int64_t>(1 + draw.Below(64)),
                       static_cast<int64_t>(1 + draw.Below(64))});
    }
    AdapterSpec adapter;
    adapter.rank = 1 + static_cast<int64_t>(draw.Below(32));
    adapter.alpha = 0.5 + 40 * draw.Uniform();
    adapter.target_modules = {"all-linear"};
    adapter.rslora = draw.Below(2) == 0;
    const int64_t rank = 1 + static_cast<int64_t>(draw.Below(32));
    std::vector<std::string> capped;
    const AdapterSpec spec = SpecAtRank(adapter, rank, sites, &capped);
    for (const LinearSite& site : sites) {
      const int64_t own = RankFor(spec, site.path);
      const int64_t most = std::min(site.in, site.out);
      EXPECT_EQ(own, std::min(rank, most)) << site.path;
      const bool named = std::find(capped.begin(), capped.end(), site.path) != capped.end();
      EXPECT_EQ(named, rank > most) << "exactly the capped ones are noticed";
      if (named || adapter.rslora) continue;
      EXPECT_NEAR(ScalingFor(spec, site.path), ScalingFor(adapter, site.path), 1e-12);
    }
    // Asked again at the rank it has, a spec stays as it is.
    std::vector<std::string> again;
    EXPECT_EQ(SpecAtRank(spec, rank, sites, &again), spec) << seed;
    EXPECT_TRUE(again.empty());
  }
}

TEST(CohortPropertiesTest, APlanCarriesTheSettingsOfEveryRound) {
  Settings settings;
  settings.run.seed = 9;
  settings.run.num_server_rounds = 12;
  settings.train.local_steps = 7;
  settings.train.lr = 0.25;
  settings.wire.codec = "bfloat16";
  settings.strategy.name = "flora";
  settings.cohort.deadline_s = 33;
  for (uint32_t round = 1; round <= 12; ++round) {
    const RoundPlan plan = PlanRound(settings, RunId{"r"}, RoundId{round}, "hash");
    EXPECT_EQ(plan.round, RoundId{round});
    EXPECT_EQ(plan.version, RoundId{round - 1});
    EXPECT_EQ(plan.training.steps_done, 7 * (round - 1));
    EXPECT_EQ(plan.num_server_rounds, 12u);
    EXPECT_EQ(plan.seed, 9u);
    EXPECT_EQ(plan.codec, "bfloat16");
    EXPECT_EQ(plan.strategy, "flora");
    EXPECT_EQ(plan.base_hash, "hash");
    EXPECT_EQ(plan.deadline_s, 33);
    EXPECT_EQ(plan.training.lr, 0.25);
    EXPECT_TRUE(plan.cohort.empty());
  }
}

}  // namespace
}  // namespace weft
