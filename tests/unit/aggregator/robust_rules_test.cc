#include "aggregator/strategies/robust_rules.h"

#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/strategies/round_merge.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::IdleClient;
using testing::LoraSpec;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::PlanFor;
using testing::Product;
using testing::RandomMatrix;
using testing::Relative;
using testing::TrainedClient;
using testing::TwoLayers;

at::Tensor GramOf(const at::Tensor& updates_KN) { return at::matmul(updates_KN, updates_KN.t()); }

// Seven honest updates around one, and liars far from them.
at::Tensor WithLiars(int64_t liars, double distance) {
  const at::Tensor common = RandomMatrix(1, 40, "common");
  at::Tensor updates = common + 0.1 * RandomMatrix(7 + liars, 40, "own");
  updates.narrow(0, 7, liars).copy_(-distance * updates.narrow(0, 7, liars));
  return updates;
}

std::vector<double> Uniform(int64_t count) {
  return std::vector<double>(static_cast<size_t>(count), 1.0 / static_cast<double>(count));
}

GlobalState Start(const Strategy& strategy) {
  Result<GlobalState> global = strategy.Init(LoraSpec(4, 8), TwoLayers(), 3);
  WEFT_CHECK(global.ok(), global.status());
  return std::move(global).value();
}

std::vector<MemoryClient> Clients(const Strategy& strategy, const StrategySettings& settings,
                                  const GlobalState& global, size_t count) {
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < count; ++k) {
    const ClientPlan plan =
        PlanFor(strategy, settings, "c" + std::to_string(k), 1 + static_cast<int64_t>(k % 4),
                3.0 + static_cast<double>(k), 1);
    clients.push_back(TrainedClient(strategy, global, plan));
    clients.back().weight = 1 + static_cast<double>(k);
  }
  return clients;
}

TEST(ChangeGramTest, ItIsThatOfTheDenseChangesForEveryRuleThatFollowsThem) {
  for (const Strategy* strategy : testing::ProductStrategies()) {
    if (!strategy->traits().any_weights) continue;
    const StrategySettings settings{.name = std::string(strategy->name())};
    GlobalState global = Start(*strategy);
    JobControl control;
    const MemoryUpdates first(Clients(*strategy, settings, global, 3));
    global = MergeRound(*strategy, {settings, global, first}, control)->global;
    const MemoryUpdates updates(Clients(*strategy, settings, global, 5));
    const Result<at::Tensor> gram = ChangeGram(*strategy, {settings, global, updates}, control);
    ASSERT_TRUE(gram.ok()) << gram.status();
    std::vector<at::Tensor> changes;
    for (size_t k = 0; k < updates.size(); ++k) {
      std::vector<at::Tensor> parts;
      for (size_t i = 0; i < TwoLayers().size(); ++i) {
        at::Tensor change = Product(*updates.Factors(k, i));
        const std::optional<LowRank> sent = *strategy->Sent(global, i, updates.plan(k));
        if (sent) change = change - Product(*sent);
        parts.push_back(change.flatten());
      }
      changes.push_back(at::cat(parts));
    }
    EXPECT_LE(Relative(*gram, GramOf(at::stack(changes))), 1e-12) << strategy->name();
  }
}

TEST(RobustRulesTest, LiarsCountForNothingOrLittle) {
  const at::Tensor gram = GramOf(WithLiars(2, 10));
  for (const std::string rule : {"krum", "multi-krum", "geometric-median", "cosine"}) {
    RobustSettings settings{.rule = rule};
    if (rule == "krum" || rule == "multi-krum") settings.byzantine = 2;
    const ClientChoice choice = ChooseClients(settings, gram, Uniform(9), 9);
    double honest = 0;
    for (size_t k = 0; k < 7; ++k) honest += choice.coefficients[k];
    for (size_t k = 7; k < 9; ++k) EXPECT_LE(choice.coefficients[k], 0.05) << rule << " " << k;
    EXPECT_GT(honest, 0.9) << rule;
    if (rule != "geometric-median") EXPECT_FALSE(choice.reasons[8].empty()) << rule;
  }
}

TEST(RobustRulesTest, CopiesOfOneLieCountOnce) {
  at::Tensor updates = WithLiars(3, 3);
  for (int64_t k = 8; k < 10; ++k) updates[k].copy_(updates[7]);
  const RobustSettings settings{.rule = "krum", .byzantine = 2};
  const ClientChoice choice = ChooseClients(settings, GramOf(updates), Uniform(10), 10);
  for (size_t k = 7; k < 10; ++k) EXPECT_EQ(choice.coefficients[k], 0);
  EXPECT_EQ(choice.reasons[8], "the same update as an earlier client's");
}

TEST(RobustRulesTest, TooFewUpdatesAreSaidAndStillMerged) {
  const at::Tensor gram = GramOf(WithLiars(0, 1).narrow(0, 0, 4));
  for (const std::string rule : {"krum", "multi-krum", "bulyan"}) {
    const RobustSettings settings{.rule = rule, .byzantine = 2};
    const ClientChoice choice = ChooseClients(settings, gram, Uniform(4), 4);
    ASSERT_EQ(choice.notes.size(), 1) << rule;
    EXPECT_NE(choice.notes[0].find("4 different updates, 2 liars need"), std::string::npos)
        << choice.notes[0];
    EXPECT_EQ(choice.byzantine, 0) << rule;
    double sum = 0;
    for (const double c : choice.coefficients) sum += c;
    EXPECT_GT(sum, 0) << rule;
  }
}

TEST(RobustRulesTest, OneClientAllEqualAndAllZeroAreNoTrouble) {
  const at::Tensor one = RandomMatrix(1, 8, "one");
  for (const std::string rule :
       {"none", "krum", "multi-krum", "geometric-median", "cosine", "bulyan", "median"}) {
    RobustSettings settings{.rule = rule, .clip = "median"};
    for (const at::Tensor& updates : {one, one.repeat({5, 1}), at::zeros({5, 8}, at::kDouble)}) {
      const int64_t count = updates.size(0);
      const ClientChoice choice =
          ChooseClients(settings, GramOf(updates), Uniform(count), static_cast<size_t>(count));
      double sum = 0;
      for (const double c : choice.coefficients) {
        EXPECT_TRUE(std::isfinite(c)) << rule;
        sum += c;
      }
      EXPECT_GT(sum, 0) << rule << " of " << count;
    }
  }
}

TEST(RobustRulesTest, FltrustWithoutItsClientOrItsConsentChangesNothing) {
  const at::Tensor updates = WithLiars(0, 1);
  const RobustSettings settings{.rule = "fltrust", .trusted = "c0"};
  const ClientChoice absent = ChooseClients(settings, GramOf(updates), Uniform(7), 7);
  for (const double c : absent.coefficients) EXPECT_EQ(c, 0);
  EXPECT_NE(absent.notes.at(0).find("c0"), std::string::npos);
  at::Tensor against = updates.clone();
  against[0].mul_(-5);
  const ClientChoice alone = ChooseClients(settings, GramOf(against), Uniform(7), 0);
  for (const double c : alone.coefficients) EXPECT_EQ(c, 0);
  const ClientChoice agreed = ChooseClients(settings, GramOf(updates), Uniform(7), 0);
  EXPECT_EQ(agreed.coefficients[0], 0);
  EXPECT_GT(agreed.coefficients[1], 0);
}

// With every rule the merge moves the global by what the dense changes say it should.
TEST(RobustMergeTest, RulesThatLookAtElementsMoveByTheElementsOfTheChanges) {
  for (const std::string name : {"exact-svd", "flora"}) {
    const Strategy& strategy = **FindStrategy(name);
    for (const std::string rule : {"median", "trimmed-mean", "bulyan"}) {
      StrategySettings settings{.name = name, .robust = {.rule = rule}};
      if (rule == "bulyan") settings.robust.byzantine = 0;
      GlobalState global = *strategy.Init(LoraSpec(12, 24), TwoLayers(), 3);
      const MemoryUpdates updates(Clients(strategy, settings, global, 5));
      JobControl control;
      const Result<MergedRound> merged = MergeRound(strategy, {settings, global, updates}, control);
      ASSERT_TRUE(merged.ok()) << merged.status();
      for (size_t i = 0; i < TwoLayers().size(); ++i) {
        std::vector<at::Tensor> products;
        for (size_t k = 0; k < 5; ++k) products.push_back(Product(*updates.Factors(k, i)));
        const at::Tensor wanted = CombineElements(settings.robust, at::stack(products));
        const at::Tensor got = Product(merged->global.adapter, i);
        EXPECT_LE(Relative(got, wanted), 0.02 + std::sqrt(merged->certificate.tail_energy) * 1.01)
            << name << " " << rule;
        if (name == "flora") EXPECT_LE(Relative(got, wanted), 1e-6) << rule;
      }
      EXPECT_LE(merged->certificate.error_before_truncation, 1e-6) << name << " " << rule;
      EXPECT_GT(merged->certificate.error_rule, 0.01) << name << " " << rule;
    }
  }
}

TEST(RobustMergeTest, KrumKeepsOneClientsChangeAndTheCertificateSaysWhose) {
  const Strategy& strategy = **FindStrategy("exact-svd");
  const StrategySettings settings{.name = "exact-svd", .robust = {.rule = "krum", .byzantine = 1}};
  const GlobalState global = Start(strategy);
  const MemoryUpdates updates(Clients(strategy, settings, global, 5));
  JobControl control;
  const Result<MergedRound> merged = MergeRound(strategy, {settings, global, updates}, control);
  ASSERT_TRUE(merged.ok()) << merged.status();
  const auto& coefficients = merged->certificate.client_coefficients;
  ASSERT_EQ(coefficients.size(), 5);
  size_t chosen = 0;
  for (size_t k = 0; k < 5; ++k) {
    if (coefficients[k].second == 1) chosen = k;
  }
  EXPECT_EQ(merged->certificate.client_remarks.size(), 4);
  for (size_t i = 0; i < TwoLayers().size(); ++i) {
    EXPECT_LE(Relative(Product(merged->global.adapter, i), Product(*updates.Factors(chosen, i))),
              1e-6);
  }
}

}  // namespace
}  // namespace weft
