// golden/aggregation: rules whose target is a sum of products, and what is left of it after a cut.
//
// Shape legend: O out, I in, L columns of a sketch.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "tests/parity/methods/aggregation_world.h"

namespace weft::testing {
namespace {

constexpr char kHetInputs[] = "aggregation/het_inputs.safetensors";
constexpr char kHetExpected[] = "aggregation/het_expected.safetensors";
constexpr char kHomInputs[] = "aggregation/hom_inputs.safetensors";
constexpr char kHomExpected[] = "aggregation/hom_expected.safetensors";

LowRankSum MeanAt(const UpdateSource& updates, size_t layer) {
  Result<LowRankSum> mean = updates.Mean(layer);
  WEFT_CHECK(mean.ok(), mean.status());
  return std::move(mean).value();
}

// The weights and products of the file are those that the world makes of its factors.
void ExpectInputs(AggregationWorld& world) {
  const MemoryUpdates updates = world.Updates();
  std::vector<double> p;
  std::vector<double> scales;
  for (size_t k = 0; k < updates.size(); ++k) {
    p.push_back(updates.weight(k));
    scales.push_back(ScalingFor(updates.plan(k).adapter, world.sites[0].path));
    for (size_t l = 0; l < world.layers(); ++l) {
      const std::string name = Str("dW.client", k, ".layer", l);
      if (world.golden.Has(name)) ExpectNear(world.golden, name, Product(*updates.Factors(k, l)));
    }
  }
  ExpectNear(world.golden, "p", p);
  if (world.golden.Has("scale")) ExpectNear(world.golden, "scale", scales);
}

TEST(AggregationParity, InputsOfMixedRanksAreConsistent) {
  AggregationWorld world(kHetInputs);
  ExpectInputs(world);
  for (const std::string name : {"n", "p", "rank", "alpha", "scale", "dW.", "client"}) {
    world.golden.ExpectAllUsed(name);
  }
}

TEST(AggregationParity, InputsOfOneRankAreConsistent) {
  AggregationWorld world(kHomInputs);
  ExpectInputs(world);
  for (const std::string name : {"n", "p", "rank", "alpha", "client"}) {
    world.golden.ExpectAllUsed(name);
  }
}

TEST(AggregationParity, FloraStacksBlocksWithWeightAndScaleInA) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const Strategy& flora = **FindStrategy("flora");
  const StrategySettings settings{.name = "flora"};
  const GlobalState global = EmptyState("flora", world.sites);
  const MemoryUpdates updates = world.Updates();
  const RoundSurvey append{.ranks = std::vector<int64_t>(world.layers(), -1)};
  for (size_t l = 0; l < world.layers(); ++l) {
    const Result<SiteMerge> stacked = flora.MergeSite({settings, global, updates}, append, l);
    ASSERT_TRUE(stacked.ok()) << stacked.status();
    ExpectNear(expected, OfLayer("flora.", l, "A_stack"), stacked->factors.A_RI);
    ExpectNear(expected, OfLayer("flora.", l, "B_stack"), stacked->factors.B_OR);
    ExpectNear(expected, OfLayer("flora.", l, "dW"), Product(stacked->factors));
    // The rule itself recompresses what is no longer low-rank, and loses nothing.
    const LowRank own = MergeLayer(settings, global, updates, l).factors;
    EXPECT_LE(own.A_RI.size(0), std::min(world.sites[l].in, world.sites[l].out));
    ExpectNear(expected, OfLayer("flora.", l, "dW"), Product(own));
  }
  expected.ExpectAllUsed("flora.");
}

TEST(AggregationParity, ExactRulesPublishTheIdealMean) {
  GoldenSet expected(kHomExpected);
  const AggregationWorld world(kHomInputs);
  for (size_t l = 0; l < world.layers(); ++l) {
    const std::string name = OfLayer("ideal.", l, "dW");
    ExpectNear(expected, name, MeanAt(world.Updates(), l).Matrix());
    for (const std::string strategy : {"exact-svd", "flora", "fedex", "fedmomentum", "fedask"}) {
      SCOPED_TRACE(strategy);
      const GlobalState global = EmptyState(strategy, world.sites);
      ExpectNear(expected, name,
                 Product(MergeLayer({.name = strategy}, global, world.Updates(), l).factors));
    }
  }
  expected.ExpectAllUsed("ideal.");
}

// The SVD of the mean cut to a rank: FlexLoRA is exact-svd without carry.
void ExpectCut(GoldenSet& expected, const AggregationWorld& world, size_t l,
               const std::string& rank) {
  const auto named = [&](const std::string& what) { return OfLayer("flexlora.", l, what); };
  const StrategySettings flex{.name = "exact-svd", .carry = false};
  const GlobalState global = EmptyState("exact-svd", world.sites, IntegerIn(rank));
  const SiteMerge merge = MergeLayer(flex, global, world.Updates(), l);
  ExpectSpectrum(expected, named("S"), merge.spectrum);
  ExpectNear(expected, named("dW_r" + rank), Product(merge.factors));
  const at::Tensor A_RI = expected.Doubles(named("A_r" + rank));
  const at::Tensor B_OR = expected.Doubles(named("B_r" + rank));
  ExpectSlots(expected, named("A_r" + rank), merge.factors.A_RI, A_RI, merge.spectrum);
  ExpectSlots(expected, named("B_r" + rank), merge.factors.B_OR.t(), B_OR.t(), merge.spectrum);
  EXPECT_LE(MaxAbs(Product(LowRank{A_RI, B_OR}) - Product(merge.factors)), kExact);
  ExpectNear(expected, named("truncation_error"), {std::sqrt(merge.cut_energy)});
  // A sketch as wide as the layer sees all of it.
  const StrategySettings sketched{.name = "fedask", .oversample = 1024};
  ExpectNear(expected, named("dW_r" + rank),
             Product(MergeLayer(sketched, global, world.Updates(), l).factors));
}

TEST(AggregationParity, FlexLoraIsExactSvdWithoutCarry) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  for (size_t l = 0; l < world.layers(); ++l) {
    for (const std::string& rank : Variants(expected, OfLayer("flexlora.", l, "dW_r"), "")) {
      ExpectCut(expected, world, l, rank);
    }
  }
  expected.ExpectAllUsed("flexlora.");
}

TEST(AggregationParity, FloristKeepsTheLeastRankOfThatEnergy) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const GlobalState global = EmptyState("florist", world.sites);
  for (size_t l = 0; l < world.layers(); ++l) {
    const std::string stem = OfLayer("florist.", l, "rank_tau");
    for (const std::string& tau : Variants(expected, stem, "")) {
      const StrategySettings settings{.name = "florist", .energy = NumberIn(tau)};
      const SiteMerge merge = MergeLayer(settings, global, world.Updates(), l);
      EXPECT_EQ(merge.factors.A_RI.size(0), expected.Integer(stem + tau)) << stem << tau;
      EXPECT_LE(merge.cut_energy, (1 - NumberIn(tau)) * merge.whole_energy + kExact);
    }
  }
  expected.ExpectAllUsed("florist.");
}

TEST(AggregationParity, SketchSeesTheMeanThroughTwoLinearProducts) {
  GoldenSet expected(kHetExpected);
  AggregationWorld world(kHetInputs);
  for (size_t l = 0; l < world.layers(); ++l) {
    const at::Tensor omega_IL = world.golden.Doubles(OfLayer("sketch.", l, "omega"));
    const LowRankSum mean = MeanAt(world.Updates(), l);
    const LowRank sketched = Sketched(mean, omega_IL);
    ExpectNear(expected, OfLayer("sketch.", l, "dW"), Product(sketched));
    const at::Tensor Y_OL = at::matmul(mean.Matrix(), omega_IL);
    ExpectNear(expected, OfLayer("sketch.", l, "Y"), Y_OL);
    // B is an orthonormal basis of what the sketch saw.
    const at::Tensor& Q_OL = sketched.B_OR;
    EXPECT_LE(MaxAbs(at::matmul(Q_OL, at::matmul(Q_OL.t(), Y_OL)) - Y_OL), kExact);
  }
  expected.ExpectAllUsed("sketch.");
  world.golden.ExpectAllUsed("sketch.");
}

TEST(AggregationParity, RankPartitionedMeanIsRaFlora) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const GlobalState global = EmptyState("raflora", world.sites);
  for (size_t l = 0; l < world.layers(); ++l) {
    const SiteMerge merge = MergeLayer({.name = "raflora"}, global, world.Updates(), l);
    ExpectNear(expected, OfLayer("rankpart.", l, "dW"), merge.sum.Matrix());
    ExpectNear(expected, OfLayer("rankpart.", l, "dW"), Product(merge.factors));
  }
  expected.ExpectAllUsed("rankpart.");
}

TEST(AggregationParity, FedBuffSumsTheFirstArrivalsByStaleness) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  std::vector<double> staleness;
  for (const double versions : expected.Numbers("fedbuff.tau")) {
    staleness.push_back(1 / std::sqrt(1 + versions));
  }
  ExpectNear(expected, "fedbuff.staleness_weight", staleness);
  const MemoryUpdates all = world.Updates();
  for (const std::string& buffer : Variants(expected, "fedbuff.K", ".layer0.dW")) {
    std::vector<double> coefficients(staleness.begin(), staleness.begin() + IntegerIn(buffer));
    for (double& coefficient : coefficients) coefficient /= NumberIn(buffer);
    const Reweighed arrived(all, coefficients);
    for (const std::string strategy : {"flora", "exact-svd"}) {
      SCOPED_TRACE(strategy);
      const GlobalState global = EmptyState(strategy, world.sites);
      for (size_t l = 0; l < world.layers(); ++l) {
        ExpectNear(expected, OfLayer("fedbuff.K" + buffer + ".", l, "dW"),
                   Product(MergeLayer({.name = strategy}, global, arrived, l).factors));
      }
    }
  }
  expected.ExpectAllUsed("fedbuff.");
}

}  // namespace
}  // namespace weft::testing
