// golden/aggregation: server optimisers on given pseudo-gradients of both factors, with the
// constants of its README. The sum starts at the state that was sent out.

#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/strategies/server_optimizer.h"
#include "tests/parity/methods/aggregation_world.h"

namespace weft::testing {
namespace {

constexpr char kInputs[] = "aggregation/hom_inputs.safetensors";
constexpr char kExpected[] = "aggregation/hom_expected.safetensors";
constexpr double kTau = 1e-3;

ServerOptimizerSettings Settings(const std::string& name) {
  return {.name = name, .lr = name == "momentum" ? 1 : 0.01, .beta1 = 0.9, .beta2 = 0.99};
}

// step1 … stepT, in order.
std::vector<int64_t> Steps(const GoldenSet& expected, const std::string& prefix) {
  std::vector<int64_t> steps;
  for (const std::string& step : Variants(expected, prefix + "step", ".layer0.A")) {
    steps.push_back(IntegerIn(step));
  }
  std::sort(steps.begin(), steps.end());
  for (size_t t = 0; t < steps.size(); ++t) EXPECT_EQ(steps[t], static_cast<int64_t>(t) + 1);
  return steps;
}

at::Tensor Delta(AggregationWorld& world, int64_t step, size_t layer, const std::string& side) {
  return world.golden.Doubles(OfLayer(Str("opt.delta", step, "."), layer, side));
}

// Every factor of every layer by itself; `begin` presets the moments, `rate` scales the step t.
template <typename Begin, typename Rate>
void ExpectSteps(const std::string& prefix, const ServerOptimizerSettings& settings, Begin begin,
                 Rate rate) {
  GoldenSet expected(kExpected);
  AggregationWorld world(kInputs);
  const std::vector<int64_t> steps = Steps(expected, prefix);
  for (size_t l = 0; l < world.layers(); ++l) {
    for (const std::string side : {"A", "B"}) {
      at::Tensor x = world.golden.Doubles(OfLayer("global.", l, side));
      Moments moments = begin(x);
      for (const int64_t t : steps) {
        ServerOptimizerSettings own = settings;
        own.lr *= rate(t);
        x = x + OptimizerStep(own, kTau, Delta(world, t, l, side), moments);
        ExpectNear(expected, OfLayer(Str(prefix, "step", t, "."), l, side), x);
      }
    }
  }
  expected.ExpectAllUsed(prefix);
  world.golden.ExpectAllUsed("opt.");
  world.golden.ExpectAllUsed("global.");
}

// The same through rounds of the rules that train one factor: one client returns what it was sent
// and the pseudo-gradient. Between rounds moments are float32, and τ is one number for all layers
// only where the settings say so, in units of the first change's rms.
void ExpectRounds(const std::string& prefix, ServerOptimizerSettings optimizer) {
  GoldenSet expected(kExpected);
  AggregationWorld world(kInputs);
  const std::vector<int64_t> steps = Steps(expected, prefix);
  for (size_t l = 0; l < world.layers(); ++l) {
    for (const std::string side : {"A", "B"}) {
      const LinearSite site{MemoryUpdates::Path(0), world.sites[l].in, world.sites[l].out};
      const double rms = Delta(world, 1, l, side).square().mean().sqrt().item<double>();
      optimizer.tau = kTau / rms;
      StrategySettings settings{.name = side == "A" ? "rolora" : "ffa"};
      settings.optimizer = optimizer;
      GlobalState global = StateOf(settings.name, world.LargestRank(), {site},
                                   {{world.golden.Doubles(OfLayer("global.", l, "A")),
                                     world.golden.Doubles(OfLayer("global.", l, "B"))}});
      for (const int64_t t : steps) {
        const SiteState& old = global.adapter.sites[0];
        MemoryClient client{{ClientId{"c"}, global.init}, 1, {{old.Get("A"), old.Get("B")}}};
        at::Tensor& factor = side == "A" ? client.factors[0].A_RI : client.factors[0].B_OR;
        factor = factor + Delta(world, t, l, side);
        const auto round = static_cast<uint64_t>(side == "A" ? 2 * t : t);
        const SiteMerge merge = MergeLayer(settings, global, MemoryUpdates({client}), 0, round);
        const at::Tensor& got = side == "A" ? merge.factors.A_RI : merge.factors.B_OR;
        const at::Tensor wanted = expected.Doubles(OfLayer(Str(prefix, "step", t, "."), l, side));
        EXPECT_LE(Relative(got, wanted), kFloat32) << prefix << t << " layer " << l << side;
        global = StateOf(settings.name, world.LargestRank(), {site}, {merge.factors});
        for (const NamedTensor& tensor : merge.memory) {
          global.memory.push_back({site.path + ":" + tensor.name, tensor.value});
        }
      }
    }
  }
}

Moments Fresh(const at::Tensor&) { return {}; }
double Constant(int64_t) { return 1; }

void ExpectOptimizer(const std::string& prefix, const std::string& name) {
  ExpectSteps(prefix, Settings(name), Fresh, Constant);
  ExpectRounds(prefix, Settings(name));
}

TEST(AggregationParity, FedAvgMRemembersTheChange) { ExpectOptimizer("fedavgm.", "momentum"); }
TEST(AggregationParity, FedAdamFollowsTheChange) { ExpectOptimizer("fedadam.", "adam"); }
TEST(AggregationParity, FedYogiFollowsTheChange) { ExpectOptimizer("fedyogi.", "yogi"); }
TEST(AggregationParity, FedAdagradFollowsTheChange) { ExpectOptimizer("fedadagrad.", "adagrad"); }

TEST(AggregationParity, FedAdamFlowerStartsAtZeroAndCorrectsTheBias) {
  const auto from_zero = [](const at::Tensor& x) {
    return Moments{.m = at::zeros_like(x), .v = at::zeros_like(x)};
  };
  const auto corrected = [](int64_t t) {
    const auto power = static_cast<double>(t + 1);
    return std::sqrt(1 - std::pow(0.99, power)) / (1 - std::pow(0.9, power));
  };
  ExpectSteps("fedadam_flower.", Settings("adam"), from_zero, corrected);
}

}  // namespace
}  // namespace weft::testing
