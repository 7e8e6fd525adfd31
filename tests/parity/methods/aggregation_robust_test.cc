// golden/aggregation: robust rules, in product space.
//
// Shape legend: K clients.

#include <algorithm>
#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/parity/methods/aggregation_world.h"

namespace weft::testing {
namespace {

constexpr char kHetInputs[] = "aggregation/het_inputs.safetensors";
constexpr char kHetExpected[] = "aggregation/het_expected.safetensors";
constexpr char kHomInputs[] = "aggregation/hom_inputs.safetensors";
constexpr char kHomExpected[] = "aggregation/hom_expected.safetensors";

RobustSettings Rule(const std::string& rule, int64_t byzantine = 0, int64_t keep = 0) {
  RobustSettings robust;
  robust.rule = rule;
  robust.byzantine = byzantine;
  robust.keep = keep;
  return robust;
}

at::Tensor Distances2(const at::Tensor& gram_KK) {
  const at::Tensor squares = gram_KK.diagonal();
  return squares.unsqueeze(1) + squares - 2 * gram_KK;
}

std::vector<double> NormsOf(const at::Tensor& gram_KK) {
  const at::Tensor norms = gram_KK.diagonal().sqrt().contiguous();
  return {norms.const_data_ptr<double>(), norms.const_data_ptr<double>() + norms.size(0)};
}

// 1e-10, or what rounding does to sums of squares that are far larger than 1.
double RoundingOf(const std::vector<double>& values) {
  return kExact * std::max(1.0, *std::max_element(values.begin(), values.end()) / 1e3);
}

void ExpectChoice(GoldenSet& expected, const std::string& name, const std::vector<size_t>& got) {
  const std::vector<int64_t> wanted = expected.Integers(name);
  EXPECT_EQ(std::vector<int64_t>(got.begin(), got.end()), wanted) << name;
}

void ExpectProducts(GoldenSet& expected, const std::string& prefix, const std::string& what,
                    const RobustRound& round, double tolerance = kExact) {
  for (size_t l = 0; l < round.dW_OI.size(); ++l) {
    ExpectNear(expected, OfLayer(prefix, l, what), round.dW_OI[l], tolerance);
  }
}

std::vector<size_t> ByScore(const std::vector<double>& scores) {
  std::vector<size_t> order(scores.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return scores[a] < scores[b]; });
  return order;
}

// What a choice leaves of the clients: those that count at all.
std::vector<size_t> Counted(const ClientChoice& choice) {
  std::vector<size_t> counted;
  for (size_t k = 0; k < choice.coefficients.size(); ++k) {
    if (choice.coefficients[k] > 0) counted.push_back(k);
  }
  return counted;
}

std::vector<size_t> Ascending(std::vector<size_t> clients) {
  std::sort(clients.begin(), clients.end());
  return clients;
}

TEST(AggregationParity, InnerProductsDistancesAndNormsComeFromFactors) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const at::Tensor gram = GramOf(world.Updates(), world.sites);
  const double rounding = RoundingOf({gram.max().item<double>()});
  ExpectNear(expected, "robust.gram", gram, rounding);
  ExpectNear(expected, "robust.dist2", Distances2(gram), rounding);
  ExpectNear(expected, "dW.norm.global", NormsOf(gram));
  std::vector<at::Tensor> by_layer;
  for (size_t l = 0; l < world.layers(); ++l) {
    const std::vector<LinearSite> alone = {
        {MemoryUpdates::Path(0), world.sites[l].in, world.sites[l].out}};
    by_layer.push_back(at::tensor(NormsOf(GramOf(world.AtLayer(l), alone)), at::kDouble));
  }
  ExpectNear(expected, "dW.norm.perlayer", at::stack(by_layer, 1));
  expected.ExpectAllUsed("robust.");
  expected.ExpectAllUsed("dW.norm.");
}

TEST(AggregationParity, KrumPicksTheClientNearestToItsNeighbours) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const at::Tensor gram = GramOf(world.Updates(), world.sites);
  for (const std::string& f : Variants(expected, "krum.f", ".scores")) {
    const std::string prefix = "krum.f" + f + ".";
    const std::vector<double> scores = KrumScores(gram, IntegerIn(f));
    ExpectNear(expected, prefix + "scores", scores, RoundingOf(scores));
    ExpectChoice(expected, prefix + "choice", {ByScore(scores)[0]});
    const RobustRound round = RunRobust(Rule("krum", IntegerIn(f)), world.Updates(), world.sites);
    EXPECT_EQ(Counted(round.choice), std::vector<size_t>{ByScore(scores)[0]});
    ExpectProducts(expected, prefix, "dW", round);
  }
  expected.ExpectAllUsed("krum.");
}

TEST(AggregationParity, MultiKrumAveragesTheBestByScore) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const at::Tensor gram = GramOf(world.Updates(), world.sites);
  for (const std::string& variant : Variants(expected, "multikrum.f", ".choice")) {
    const size_t split = variant.find(".m");  // "1.m3"
    ASSERT_NE(split, std::string::npos) << variant;
    const RobustSettings robust = Rule("multi-krum", IntegerIn(variant.substr(0, split)),
                                       IntegerIn(variant.substr(split + 2)));
    const std::string prefix = "multikrum.f" + variant + ".";
    std::vector<size_t> best = ByScore(KrumScores(gram, robust.byzantine));
    best.resize(static_cast<size_t>(robust.keep));
    ExpectChoice(expected, prefix + "choice", best);
    const RobustRound weighted = RunRobust(robust, world.Updates(), world.sites);
    EXPECT_EQ(Counted(weighted.choice), Ascending(best));
    ExpectProducts(expected, prefix, "dW_weighted", weighted);
    ExpectProducts(expected, prefix, "dW_unweighted",
                   RunRobust(robust, world.UniformUpdates(), world.sites));
  }
  expected.ExpectAllUsed("multikrum.");
}

TEST(AggregationParity, MedianIsElementwiseInProductSpace) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  ExpectProducts(expected, "median.", "dW",
                 RunRobust(Rule("median"), world.Updates(), world.sites));
  expected.ExpectAllUsed("median.");
}

TEST(AggregationParity, TrimmedMeanIsElementwiseInProductSpace) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  for (const std::string& beta : Variants(expected, "trimmed.beta", ".layer0.dW")) {
    RobustSettings robust = Rule("trimmed-mean");
    robust.trim = NumberIn(beta);
    ExpectProducts(expected, "trimmed.beta" + beta + ".", "dW",
                   RunRobust(robust, world.Updates(), world.sites));
  }
  expected.ExpectAllUsed("trimmed.");
}

constexpr double kNearest = 1e-6;  // ν of the README

// Σ p_k ‖Σ c_j D_j − D_k‖.
double Objective(const at::Tensor& gram_KK, const std::vector<double>& weights,
                 const std::vector<double>& coefficients) {
  const at::Tensor c = at::tensor(coefficients, at::kDouble);
  const at::Tensor Gc = at::mv(gram_KK, c);
  const at::Tensor distances = (at::dot(c, Gc) - 2 * Gc + gram_KK.diagonal()).clamp_min(0).sqrt();
  return at::dot(at::tensor(weights, at::kDouble), distances).item<double>();
}

TEST(AggregationParity, GeometricMedianOfWeightedAndEqualClients) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  for (const std::string kind : {"weighted", "uniform"}) {
    SCOPED_TRACE(kind);
    const MemoryUpdates updates = kind == "weighted" ? world.Updates() : world.UniformUpdates();
    const at::Tensor gram = GramOf(updates, world.sites);
    std::vector<double> p;
    for (size_t k = 0; k < updates.size(); ++k) p.push_back(updates.weight(k));
    const std::string prefix = "geomed." + kind + ".";
    for (const std::string& steps : Variants(expected, prefix + "coef_after", "")) {
      ExpectNear(expected, prefix + "coef_after" + steps,
                 GeometricMedian(gram, p, IntegerIn(steps), kNearest), kMedian);
    }
    const std::vector<double> median = GeometricMedian(gram, p, 0, kNearest);
    ExpectNear(expected, prefix + "coef", median, kMedian);
    ExpectNear(expected, prefix + "objective", std::vector<double>{Objective(gram, p, median)},
               kMedian);
    // The rule itself takes as near what is so in units of the largest norm.
    const RobustRound round = RunRobust(Rule("geometric-median"), updates, world.sites);
    const double largest = std::sqrt(gram.diagonal().max().item<double>());
    ExpectNear(expected, prefix + "coef", round.choice.coefficients,
               kMedian * std::max(1.0, largest));
    ExpectProducts(expected, prefix, "dW", round, kMedian * std::max(1.0, largest));
  }
  expected.ExpectAllUsed("geomed.");
}

TEST(AggregationParity, ClippingBoundsNormsAtTheirMedian) {
  GoldenSet expected(kHetExpected);
  const AggregationWorld world(kHetInputs);
  const MemoryUpdates updates = world.Updates();
  const std::vector<double> norms = NormsOf(GramOf(updates, world.sites));
  RobustSettings robust;
  robust.clip = "median";
  const RobustRound round = RunRobust(robust, updates, world.sites);
  std::vector<double> factors;
  double longest = 0;  // is the bound: at least one client is at or above the median
  for (size_t k = 0; k < updates.size(); ++k) {
    factors.push_back(round.choice.coefficients[k] / updates.weight(k));
    longest = std::max(longest, factors[k] * norms[k]);
  }
  ExpectNear(expected, "clip.factor", factors);
  ExpectNear(expected, "clip.C", std::vector<double>{longest});
  ExpectProducts(expected, "clip.", "dW", round);
  robust.clip = "fixed";
  robust.clip_norm = expected.Number("clip.C");
  ExpectProducts(expected, "clip.", "dW", RunRobust(robust, updates, world.sites));
  expected.ExpectAllUsed("clip.");
}

// The clients and one more, whose update the others are measured by.
MemoryUpdates WithTrusted(AggregationWorld& world) {
  std::vector<MemoryClient> clients = world.clients;
  const int64_t rank = world.golden.Doubles(OfLayer("server.", 0, "A")).size(0);
  MemoryClient trusted{{ClientId{"server"}, LoraSpec(rank, static_cast<double>(rank))}, 1, {}};
  for (size_t l = 0; l < world.layers(); ++l) {
    trusted.factors.push_back(
        {world.golden.Doubles(OfLayer("server.", l, "A"), {rank, world.sites[l].in}),
         world.golden.Doubles(OfLayer("server.", l, "B"), {world.sites[l].out, rank})});
  }
  clients.push_back(std::move(trusted));
  return MemoryUpdates(std::move(clients));
}

TEST(AggregationParity, FlTrustWeighsClientsByCosineToATrustedUpdate) {
  GoldenSet expected(kHetExpected);
  AggregationWorld world(kHetInputs);
  const MemoryUpdates updates = WithTrusted(world);
  const at::Tensor gram = GramOf(updates, world.sites);
  const std::vector<double> norms = NormsOf(gram);
  const size_t server = updates.size() - 1;
  RobustSettings robust = Rule("fltrust");
  robust.trusted = "server";
  const RobustRound round = RunRobust(robust, updates, world.sites);
  EXPECT_EQ(round.choice.coefficients[server], 0);
  std::vector<double> cosines;
  double sum = 0;
  for (size_t k = 0; k < server; ++k) {
    const at::Tensor product = gram[static_cast<int64_t>(k)][static_cast<int64_t>(server)];
    cosines.push_back(product.item<double>() / (norms[k] * norms[server]));
    sum += std::max(0.0, cosines[k]);
  }
  ExpectNear(expected, "fltrust.cos", cosines);
  std::vector<double> scores;
  for (size_t k = 0; k < server; ++k) {
    scores.push_back(round.choice.coefficients[k] * norms[k] / norms[server] * sum);
  }
  ExpectNear(expected, "fltrust.score", scores);
  ExpectProducts(expected, "fltrust.", "dW", round);
  expected.ExpectAllUsed("fltrust.");
  world.golden.ExpectAllUsed("server.");
}

TEST(AggregationParity, BulyanAveragesNearTheMedianOfRepeatedKrumPicks) {
  GoldenSet expected(kHomExpected);
  const AggregationWorld world(kHomInputs);
  const MemoryUpdates updates = world.Updates();
  const at::Tensor gram = GramOf(updates, world.sites);
  for (const std::string& f : Variants(expected, "bulyan.f", ".selected")) {
    const std::string prefix = "bulyan.f" + f + ".";
    const int64_t byzantine = IntegerIn(f);
    const int64_t picks = static_cast<int64_t>(updates.size()) - 2 * byzantine;
    const std::vector<size_t> picked = RepeatedKrum(gram, byzantine, picks);
    ExpectChoice(expected, prefix + "selected", picked);
    const RobustRound round = RunRobust(Rule("bulyan", byzantine), updates, world.sites);
    EXPECT_EQ(Counted(round.choice), Ascending(picked));
    ExpectProducts(expected, prefix, "dW", round);
  }
  expected.ExpectAllUsed("bulyan.");
}

}  // namespace
}  // namespace weft::testing
