// golden/aggregation: rules that average factors, and those that train one of them. Its numbers are
// factors as clients hold them; ours are at scale 1, the scale in B.
//
// Shape legend: O out, I in, G the largest rank.

#include <gtest/gtest.h>

#include "aggregator/strategies/residual.h"
#include "aggregator/strategies/slots.h"
#include "tests/parity/methods/aggregation_world.h"

namespace weft::testing {
namespace {

constexpr char kHetInputs[] = "aggregation/het_inputs.safetensors";
constexpr char kHetExpected[] = "aggregation/het_expected.safetensors";
constexpr char kHomInputs[] = "aggregation/hom_inputs.safetensors";
constexpr char kHomExpected[] = "aggregation/hom_expected.safetensors";

// Factors of every layer under "<prefix>layer<l>.A" and ".B".
void ExpectMixedFactors(GoldenSet& expected, const AggregationWorld& world,
                        const std::string& prefix, const StrategySettings& settings) {
  const GlobalState global = EmptyState(settings.name, world.sites, world.LargestRank());
  for (size_t l = 0; l < world.layers(); ++l) {
    const LowRank factors = MergeLayer(settings, global, world.Updates(), l).factors;
    ExpectNear(expected, OfLayer(prefix, l, "A"), factors.A_RI);
    ExpectNear(expected, OfLayer(prefix, l, "B"), factors.B_OR);
  }
}

// What all clients were sent, at scale 1.
GlobalState SentState(AggregationWorld& world, const std::string& strategy) {
  std::vector<LowRank> factors;
  for (size_t l = 0; l < world.layers(); ++l) {
    factors.push_back({world.golden.Doubles(OfLayer("global.", l, "A")),
                       world.golden.Doubles(OfLayer("global.", l, "B")) * world.Scaling()});
  }
  return StateOf(strategy, world.LargestRank(), world.sites, factors);
}

// The clients as they are where one factor, A or B, was frozen: it is what they were sent.
MemoryUpdates WithFrozen(AggregationWorld& world, const std::string& side) {
  std::vector<MemoryClient> clients = world.clients;
  for (MemoryClient& client : clients) {
    for (size_t l = 0; l < world.layers(); ++l) {
      at::Tensor& factor = side == "A" ? client.factors[l].A_RI : client.factors[l].B_OR;
      factor = world.golden.Doubles(OfLayer("global.", l, side), factor.sizes().vec());
    }
  }
  return MemoryUpdates(std::move(clients));
}

TEST(AggregationParity, ZeroPaddedMeansOfFactorsByWhereTheScaleGoes) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  for (const auto& [golden, absorb] : std::vector<std::pair<std::string, std::string>>{
           {"absB", "B"}, {"sqrt", "sqrt"}, {"raw", "raw"}}) {
    ExpectMixedFactors(expected, world, "fedavg_zeropad." + golden + ".",
                       {.name = "fedavg", .absorb = absorb});
  }
  expected.ExpectAllUsed("fedavg_zeropad.");
}

TEST(AggregationParity, HetLoraWeighsClientsByNorm) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const StrategySettings by_model{.name = "hetlora", .norm_scope = "model"};
  ExpectMixedFactors(expected, world, "hetlora.global.", by_model);
  ExpectMixedFactors(expected, world, "hetlora.perlayer.",
                     {.name = "hetlora", .norm_scope = "layer"});
  const Strategy& hetlora = **FindStrategy("hetlora");
  const MemoryUpdates updates = world.Updates();
  const GlobalState global = EmptyState("hetlora", world.sites);
  ExpectNear(expected, "hetlora.global.weights",
             hetlora.Survey({by_model, global, updates})->weights);
  for (size_t l = 0; l < world.layers(); ++l) {  // a model of that layer alone
    const MemoryUpdates at_layer = world.AtLayer(l);
    const GlobalState alone = EmptyState("hetlora", {world.sites[l]});
    ExpectNear(expected, OfLayer("hetlora.perlayer.", l, "weights"),
               hetlora.Survey({by_model, alone, at_layer})->weights);
  }
  expected.ExpectAllUsed("hetlora.");
}

TEST(AggregationParity, RblaAveragesEachSlotOverItsOwners) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  ExpectMixedFactors(expected, world, "rbla.", {.name = "rbla"});
  expected.ExpectAllUsed("rbla.");
}

TEST(AggregationParity, FedItIsTheMeanOfFactorsOfOneRank) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  const GlobalState global = SentState(world, "fedavg");
  for (size_t l = 0; l < world.layers(); ++l) {
    const LowRank mean = MergeLayer({.name = "fedavg"}, global, world.Updates(), l).factors;
    ExpectNear(expected, OfLayer("fedit.", l, "A"), mean.A_RI);
    ExpectNear(expected, OfLayer("fedit.", l, "B"), mean.B_OR / world.Scaling());
  }
  expected.ExpectAllUsed("fedit.");
}

// What the mean of the factors lacks; published with it, in whatever slots.
void ExpectResidual(GoldenSet& expected, const AggregationWorld& world, const GlobalState& global) {
  const MemoryUpdates updates = world.Updates();
  const StrategySettings settings{.name = "fedex"};
  for (size_t l = 0; l < world.layers(); ++l) {
    const LowRank mean = MergeLayer({.name = "fedavg"}, global, updates, l).factors;
    const Result<LowRankSum> residual = FactorResidual({settings, global, updates}, l, mean);
    ASSERT_TRUE(residual.ok()) << residual.status();
    ExpectNear(expected, OfLayer("fedex.", l, "residual"), residual->Matrix());
    const LowRank published = MergeLayer(settings, global, updates, l).factors;
    ExpectNear(expected, OfLayer("fedex.", l, "residual"), Product(published) - Product(mean));
  }
  expected.ExpectAllUsed("fedex.");
}

TEST(AggregationParity, FedExKeepsTheResidualOfMixedRanks) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  ExpectResidual(expected, world, EmptyState("fedex", world.sites, world.LargestRank()));
}

TEST(AggregationParity, FedExKeepsTheResidualOfOneRank) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  ExpectResidual(expected, world, SentState(world, "fedex"));
}

// One factor stays as it was sent, the other is averaged: its mean, and the product.
void ExpectMeanOfSide(const std::string& strategy, const std::string& frozen, uint64_t round,
                      const std::string& names, const std::string& trained) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  const GlobalState global = SentState(world, strategy);
  const MemoryUpdates updates = WithFrozen(world, frozen);
  for (size_t l = 0; l < world.layers(); ++l) {
    const LowRank factors = MergeLayer({.name = strategy}, global, updates, l, round).factors;
    ExpectNear(expected, OfLayer(names, l, trained),
               trained == "A" ? factors.A_RI : factors.B_OR / world.Scaling());
    ExpectNear(expected, OfLayer(names, l, "dW"), Product(factors));
  }
  expected.ExpectAllUsed(strategy + ".");
}

TEST(AggregationParity, FfaAveragesBOnTheFrozenA) { ExpectMeanOfSide("ffa", "A", 1, "ffa.", "B"); }

TEST(AggregationParity, RoLoraAveragesAInEvenRounds) {
  ExpectMeanOfSide("rolora", "B", 2, "rolora.Around.", "A");
}

TEST(AggregationParity, FedSvdGivesBothFactorsAnew) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  const GlobalState global = SentState(world, "fedsvd");
  const MemoryUpdates updates = WithFrozen(world, "A");
  for (size_t l = 0; l < world.layers(); ++l) {
    const LowRank ours = MergeLayer({.name = "fedsvd"}, global, updates, l).factors;
    const at::Tensor B_OR = ours.B_OR / world.Scaling();
    const LowRank wanted{expected.Doubles(OfLayer("fedsvd.", l, "A")),
                         expected.Doubles(OfLayer("fedsvd.", l, "B"))};
    EXPECT_LE(MaxAbs(at::matmul(B_OR, ours.A_RI) - Product(wanted)), kExact);
    const at::Tensor S = B_OR.norm(2, {0});
    ExpectSlots(expected, OfLayer("fedsvd.", l, "A"), ours.A_RI, wanted.A_RI, S);
    ExpectSlots(expected, OfLayer("fedsvd.", l, "B"), B_OR.t(), wanted.B_OR.t(), S);
  }
  expected.ExpectAllUsed("fedsvd.");
}

TEST(AggregationParity, LoraFairCorrectsBByRidgeRegression) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  const GlobalState global = SentState(world, "lora-fair");
  for (const std::string& lambda : Variants(expected, "lorafair_ridge.lam", ".layer0.B")) {
    const StrategySettings settings{.name = "lora-fair", .ridge = NumberIn(lambda)};
    for (size_t l = 0; l < world.layers(); ++l) {
      const LowRank factors = MergeLayer(settings, global, world.Updates(), l).factors;
      ExpectNear(expected, OfLayer("lorafair_ridge.lam" + lambda + ".", l, "B"),
                 factors.B_OR / world.Scaling());
    }
  }
  expected.ExpectAllUsed("lorafair_ridge.");
}

TEST(AggregationParity, FedRotTurnsClientsTowardsWhatTheyWereSent) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  const GlobalState global = SentState(world, "fedrot");
  for (const std::string& lambda : Variants(expected, "fedrot.lam", ".layer0.A")) {
    const StrategySettings settings{.name = "fedrot", .soften = NumberIn(lambda)};
    const std::string prefix = "fedrot.lam" + lambda + ".";
    for (size_t l = 0; l < world.layers(); ++l) {
      const LowRank factors = MergeLayer(settings, global, world.Updates(), l, 1).factors;
      ExpectNear(expected, OfLayer(prefix, l, "A"), factors.A_RI);
      ExpectNear(expected, OfLayer(prefix, l, "B"), factors.B_OR / world.Scaling());
    }
  }
  expected.ExpectAllUsed("fedrot.");
}

// Element-wise rules on a factor, where the other is the same for all: ffa's B, rolora's A in even
// rounds.
void ExpectElementRule(GoldenSet& expected, AggregationWorld& world, const std::string& prefix,
                       const RobustSettings& robust) {
  const GlobalState global = SentState(world, "rolora");
  const MemoryUpdates updates = world.Updates();
  const Reweighed all(updates, std::vector<double>(updates.size(), 1));
  StrategySettings settings;
  settings.robust = robust;
  for (size_t l = 0; l < world.layers(); ++l) {
    settings.name = "rolora";
    ExpectNear(expected, OfLayer(prefix, l, "A"),
               MergeLayer(settings, global, all, l, 2).factors.A_RI);
    settings.name = "ffa";
    ExpectNear(expected, OfLayer(prefix, l, "B"),
               MergeLayer(settings, global, all, l).factors.B_OR / world.Scaling());
  }
}

TEST(AggregationParity, FactorMedianIsElementwise) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  RobustSettings robust;
  robust.rule = "median";
  ExpectElementRule(expected, world, "factor_median.", robust);
  expected.ExpectAllUsed("factor_median.");
}

TEST(AggregationParity, FactorTrimmedMeanCutsBothEnds) {
  GoldenSet expected(kHomExpected);
  AggregationWorld world(kHomInputs);
  for (const std::string& beta : Variants(expected, "factor_trimmed.beta", ".layer0.A")) {
    RobustSettings robust;
    robust.rule = "trimmed-mean";
    robust.trim = NumberIn(beta);
    ExpectElementRule(expected, world, "factor_trimmed.beta" + beta + ".", robust);
  }
  expected.ExpectAllUsed("factor_trimmed.");
}

}  // namespace
}  // namespace weft::testing
