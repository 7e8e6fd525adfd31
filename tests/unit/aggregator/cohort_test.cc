// Sampling, ranks and plans: the same from the same seed, whoever asks.

#include "aggregator/cohort.h"

#include <algorithm>
#include <set>

#include <gtest/gtest.h>

#include "common/base/str.h"

namespace weft {
namespace {

std::vector<ClientId> Clients(size_t count) {
  std::vector<ClientId> clients;
  for (size_t i = 0; i < count; ++i) clients.push_back({Str("c", i + 100)});
  return clients;
}

const std::vector<LinearSite> kSites = {{"a.q_proj", 64, 64}, {"a.tiny_proj", 64, 4}};

TEST(CohortTest, ItsSizeIsTheCeilingOfTheShareWithinItsBounds) {
  CohortSettings cohort;
  cohort.fraction_train = 0.1;
  EXPECT_EQ(CohortSize(cohort, 30), 3U) << "0.1 x 30 is 3, whatever binary fractions say";
  EXPECT_EQ(CohortSize(cohort, 31), 4U);
  EXPECT_EQ(CohortSize(cohort, 1), 1U);
  EXPECT_EQ(CohortSize(cohort, 0), 0U);
  cohort.min_train_nodes = 5;
  EXPECT_EQ(CohortSize(cohort, 30), 5U);
  EXPECT_EQ(CohortSize(cohort, 4), 4U);
}

TEST(CohortTest, DrawsDependOnSeedRoundAndAttemptAndCoverEverybody) {
  CohortSettings cohort;
  cohort.fraction_train = 0.25;
  const std::vector<ClientId> all = Clients(20);
  std::set<ClientId> seen;
  std::set<std::vector<ClientId>> draws;
  for (uint32_t round = 1; round <= 40; ++round) {
    const auto drawn = SampleCohort(cohort, 7, RoundId{round}, 1, all, {});
    EXPECT_EQ(drawn.size(), 5U);
    EXPECT_TRUE(std::is_sorted(drawn.begin(), drawn.end()));
    EXPECT_EQ(drawn, SampleCohort(cohort, 7, RoundId{round}, 1, all, {}));
    seen.insert(drawn.begin(), drawn.end());
    draws.insert(drawn);
  }
  EXPECT_EQ(seen.size(), all.size());
  EXPECT_GT(draws.size(), 35U);
  EXPECT_NE(SampleCohort(cohort, 7, RoundId{1}, 1, all, {}),
            SampleCohort(cohort, 7, RoundId{1}, 2, all, {}));
}

TEST(CohortTest, WhoHasDeliveredStaysInTheNextTry) {
  CohortSettings cohort;
  cohort.fraction_train = 0.2;
  const std::vector<ClientId> all = Clients(20);
  const std::vector<ClientId> already = {all[3], all[17]};
  const auto drawn = SampleCohort(cohort, 7, RoundId{2}, 2, all, already);
  EXPECT_EQ(drawn.size(), 4U);
  for (const ClientId& client : already) {
    EXPECT_TRUE(std::binary_search(drawn.begin(), drawn.end(), client));
  }
}

TEST(CohortTest, EvaluatorsMayBeNobody) {
  CohortSettings cohort;
  cohort.fraction_evaluate = 0;
  EXPECT_TRUE(SampleEvaluators(cohort, 1, RoundId{1}, Clients(5)).empty());
  cohort.fraction_evaluate = 0.5;
  EXPECT_EQ(SampleEvaluators(cohort, 1, RoundId{1}, Clients(5)).size(), 3U);
}

TEST(CohortTest, TheGlobalRankComesFromSettingsOnlyWhereTheySayAllOfIt) {
  Settings settings;
  EXPECT_EQ(GlobalRankFromSettings(settings), 0);
  settings.clients.resize(2);
  settings.clients[0].rank = "4";
  settings.clients[1].rank = "16";
  EXPECT_EQ(GlobalRankFromSettings(settings), 16);
  settings.clients[0].rank = "auto";
  EXPECT_EQ(GlobalRankFromSettings(settings), 0) << "a site decides it";
  settings.strategy.global_rank = 32;
  EXPECT_EQ(GlobalRankFromSettings(settings), 32);
}

// Virtual clients join one by one, and the first must not decide for all.
TEST(CohortTest, TheSimulatorsRanksDecideTheGlobalRank) {
  Settings settings;
  settings.adapter.rank = 6;
  settings.sim.clients = 3;
  EXPECT_EQ(GlobalRankFromSettings(settings), 6);
  settings.sim.ranks = {2, 4, 8, 16};
  EXPECT_EQ(GlobalRankFromSettings(settings), 8) << "nobody gets the fourth";
}

TEST(CohortTest, AnotherRankKeepsTheScalingAndCapsSmallLayersWithANotice) {
  AdapterSpec adapter;
  adapter.rank = 16;
  adapter.alpha = 32;
  adapter.rank_pattern = {{"q_proj", 12}};
  adapter.alpha_pattern = {{"q_proj", 8}};
  std::vector<std::string> capped;
  const AdapterSpec spec = SpecAtRank(adapter, 8, kSites, &capped);
  EXPECT_EQ(spec.rank, 8);
  EXPECT_DOUBLE_EQ(spec.alpha, 16);
  EXPECT_DOUBLE_EQ(spec.alpha_pattern[0].second, 4);
  EXPECT_EQ(capped, std::vector<std::string>{"a.tiny_proj"});
  for (const auto& [pattern, rank] : spec.rank_pattern) EXPECT_LE(rank, 8);
  adapter.rslora = true;
  EXPECT_DOUBLE_EQ(SpecAtRank(adapter, 8, kSites, &capped).alpha, 32);
}

TEST(CohortTest, APlanForOneClientNamesNobodyElse) {
  Settings settings;
  settings.train.local_steps = 20;
  RoundPlan plan = PlanRound(settings, RunId{"r"}, RoundId{3}, "hash");
  EXPECT_EQ(plan.version, RoundId{2});
  EXPECT_EQ(plan.training.steps_done, 40);
  plan.cohort = {{ClientId{"alpha"}, {}}, {ClientId{"beta"}, {}}};
  plan.evaluators = {ClientId{"gamma"}};
  const RoundPlan own = PlanFor(plan, plan.cohort[1]);
  ASSERT_EQ(own.cohort.size(), 1U);
  EXPECT_EQ(own.cohort[0].client.name, "beta");
  EXPECT_TRUE(own.evaluators.empty());
}

TEST(CohortTest, WhoIsStillAtAnEarlierRoundIsSentThatRoundsPlan) {
  Settings settings;
  settings.train.local_steps = 20;
  settings.cohort.max_staleness = 3;
  RoundPlan first = PlanRound(settings, RunId{"r"}, RoundId{3}, "hash");
  first.cohort = {{ClientId{"alpha"}, {}}, {ClientId{"beta"}, {}}};
  RoundPlan later = PlanRound(settings, RunId{"r"}, RoundId{5}, "hash");
  later.cohort = first.cohort;
  later.cohort[1].asked = RoundId{3};
  EXPECT_EQ(PlanFor(later, later.cohort[1]), PlanFor(first, first.cohort[1]));
  EXPECT_EQ(PlanFor(later, later.cohort[0]).round, RoundId{5});
  EXPECT_NE(CutKey(later.cohort[1]), CutKey(later.cohort[0])) << "it started from another version";
}

TEST(CohortTest, ARelayIsAskedForTheRanksThatItsMembersChangesAddUpTo) {
  AdapterSpec adapter;
  adapter.rank = 16;
  Capabilities relay;
  relay.rank_max = 2 * (4 + 8);  // what came back and what was sent, of two members
  relay.members = 2;
  EXPECT_EQ(RankOfClient(relay, adapter, 16), 2 * (4 + 8)) << "no more than it offers";
  EXPECT_EQ(RankOfClient(relay, adapter, 6), 4 + 8 + 6) << "what was sent lies in the global's 6";
  EXPECT_EQ(RankOfClient(relay, adapter, 3), 2 * 3 + 3)
      << "nobody trains more than the global rank";
  EXPECT_EQ(RankOfClient(relay, adapter, 0), 16) << "it does not say its members' ranks";
}

}  // namespace
}  // namespace weft
