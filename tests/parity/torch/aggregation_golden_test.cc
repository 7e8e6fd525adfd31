// The merging rules against golden/aggregation and golden/flora: numbers of an independent numpy
// program. In float64, so 1e-10 absolute; the flora set is float32, so 1e-5.

#include <gtest/gtest.h>

#include "common/formats/safetensors.h"
#include "tests/support/paths.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::MaxAbs;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::Product;

constexpr double kTolerance = 1e-10;

class Golden {
 public:
  explicit Golden(const std::string& name) : file_(Open(name)) {}

  // In float64, whatever is stored.
  at::Tensor operator[](const std::string& name) const {
    const StoredTensor* stored = file_.Find(name);
    WEFT_CHECK(stored != nullptr, "golden tensor ", name);
    const auto type = stored->dtype == DType::kFloat64   ? at::kDouble
                      : stored->dtype == DType::kFloat32 ? at::kFloat
                                                         : at::kLong;
    at::Tensor tensor = at::empty(stored->shape, type);
    std::memcpy(tensor.mutable_data_ptr(), stored->bytes.data(), stored->bytes.size());
    return tensor.to(at::kDouble);
  }
  bool Has(const std::string& name) const { return file_.Find(name) != nullptr; }

 private:
  static SafetensorsFile Open(const std::string& name) {
    Result<SafetensorsFile> file = SafetensorsFile::Open(testing::GoldenDir() / name);
    WEFT_CHECK(file.ok(), file.status());
    return std::move(file).value();
  }
  SafetensorsFile file_;
};

std::string Key(const std::string& prefix, size_t layer, const std::string& name) {
  return prefix + "layer" + std::to_string(layer) + "." + name;
}

// The five clients of a set, with their gauges, ranks and alphas.
MemoryUpdates Clients(const Golden& golden, size_t count, size_t layers) {
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < count; ++k) {
    MemoryClient client;
    client.plan.client.name = "c" + std::to_string(k);
    client.plan.adapter =
        testing::LoraSpec(golden["rank"][static_cast<int64_t>(k)].item<int64_t>(),
                          golden["alpha"][static_cast<int64_t>(k)].item<double>());
    client.weight = golden["n"][static_cast<int64_t>(k)].item<double>();
    for (size_t l = 0; l < layers; ++l) {
      const std::string prefix = "client" + std::to_string(k) + ".";
      client.factors.push_back({golden[Key(prefix, l, "A")], golden[Key(prefix, l, "B")]});
    }
    clients.push_back(std::move(client));
  }
  return MemoryUpdates(std::move(clients));
}

// A global state with these ranks and float64 tensors, so that nothing is rounded on the way.
GlobalState State(const Strategy& strategy, int64_t rank, const std::vector<LowRank>& layers) {
  GlobalState global{std::string(strategy.name()), testing::LoraSpec(rank, 1), {}};
  for (size_t l = 0; l < layers.size(); ++l) {
    const LinearSite site{MemoryUpdates::Path(l), layers[l].A_RI.size(1), layers[l].B_OR.size(0)};
    global.adapter.sites.push_back({site, {{"A", layers[l].A_RI}, {"B", layers[l].B_OR}}});
  }
  global.adapter.spec = UnitSpec(global.init, global.adapter.sites);
  return global;
}

GlobalState Empty(const Strategy& strategy, int64_t rank, const Golden& golden) {
  std::vector<LowRank> layers;
  for (size_t l = 0; l < 2; ++l) {
    const at::Tensor A_RI = golden[Key("client0.", l, "A")];
    const at::Tensor B_OR = golden[Key("client0.", l, "B")];
    layers.push_back(
        {at::ones({1, A_RI.size(1)}, at::kDouble), at::zeros({B_OR.size(0), 1}, at::kDouble)});
  }
  return State(strategy, rank, layers);
}

SiteMerge Merge(const StrategySettings& settings, const GlobalState& global,
                const UpdateSource& updates, size_t site) {
  const Strategy* strategy = *FindStrategy(settings.name);
  const MergeInput input{settings, global, updates};
  Result<std::vector<int64_t>> plan = strategy->RankPlan(input);
  WEFT_CHECK(plan.ok(), plan.status());
  Result<SiteMerge> merge = strategy->MergeSite(input, *plan, site);
  WEFT_CHECK(merge.ok(), merge.status());
  return std::move(merge).value();
}

TEST(AggregationGoldenTest, FedAvgIsTheZeroPaddedMeanOfFactorsWithTheScaleAbsorbed) {
  const Golden inputs("aggregation/het_inputs.safetensors");
  const Golden expected("aggregation/het_expected.safetensors");
  const MemoryUpdates clients = Clients(inputs, 5, 2);
  const StrategySettings settings{.name = "fedavg"};
  const GlobalState global = Empty(**FindStrategy("fedavg"), 16, inputs);
  for (size_t l = 0; l < 2; ++l) {
    const SiteMerge merge = Merge(settings, global, clients, l);
    EXPECT_LE(MaxAbs(merge.factors.A_RI - expected[Key("fedavg_zeropad.absB.", l, "A")]),
              kTolerance);
    EXPECT_LE(MaxAbs(merge.factors.B_OR - expected[Key("fedavg_zeropad.absB.", l, "B")]),
              kTolerance);
    // The other two conventions differ, so this comparison has power.
    EXPECT_GT(MaxAbs(merge.factors.B_OR - expected[Key("fedavg_zeropad.raw.", l, "B")]), 1e-3);
  }
}

TEST(AggregationGoldenTest, FloraStacksTheBlocksWithWeightAndScaleInA) {
  const Golden inputs("aggregation/het_inputs.safetensors");
  const Golden expected("aggregation/het_expected.safetensors");
  const MemoryUpdates clients = Clients(inputs, 5, 2);
  const StrategySettings settings{.name = "flora"};
  const Strategy& flora = **FindStrategy("flora");
  const GlobalState global = Empty(flora, 16, inputs);
  const MergeInput input{settings, global, clients};
  const std::vector<int64_t> append(2, -1);
  for (size_t l = 0; l < 2; ++l) {
    const SiteMerge stacked = *flora.MergeSite(input, append, l);
    EXPECT_LE(MaxAbs(stacked.factors.A_RI - expected[Key("flora.", l, "A_stack")]), kTolerance);
    EXPECT_LE(MaxAbs(stacked.factors.B_OR - expected[Key("flora.", l, "B_stack")]), kTolerance);
    EXPECT_LE(MaxAbs(Product(stacked.factors) - expected[Key("flora.", l, "dW")]), kTolerance);
    // Its rank 33 passes min(in, out), so the rule itself recompresses, and loses nothing.
    const SiteMerge merge = Merge(settings, global, clients, l);
    EXPECT_LE(merge.factors.A_RI.size(0), 16);
    EXPECT_LE(MaxAbs(Product(merge.factors) - expected[Key("flora.", l, "dW")]), kTolerance);
  }
}

TEST(AggregationGoldenTest, ExactSvdWithoutCarryIsFlexLora) {
  const Golden inputs("aggregation/het_inputs.safetensors");
  const Golden expected("aggregation/het_expected.safetensors");
  const MemoryUpdates clients = Clients(inputs, 5, 2);
  const StrategySettings settings{.name = "exact-svd", .carry = false};
  const GlobalState global = Empty(**FindStrategy("exact-svd"), 8, inputs);
  for (size_t l = 0; l < 2; ++l) {
    const SiteMerge merge = Merge(settings, global, clients, l);
    const at::Tensor wanted = expected[Key("flexlora.", l, "S")];
    const int64_t count = wanted.size(0);
    EXPECT_LE(MaxAbs(merge.spectrum.narrow(0, 0, count) - wanted), kTolerance);
    EXPECT_LE(MaxAbs(Product(merge.factors) - expected[Key("flexlora.", l, "dW_r8")]), kTolerance);
    EXPECT_LE(MaxAbs(merge.factors.A_RI - expected[Key("flexlora.", l, "A_r8")]), 1e-9);
    EXPECT_LE(MaxAbs(merge.factors.B_OR - expected[Key("flexlora.", l, "B_r8")]), 1e-9);
    EXPECT_NEAR(std::sqrt(merge.cut_energy),
                expected[Key("flexlora.", l, "truncation_error")].item<double>(), kTolerance);
  }
}

class TailCarryTest : public ::testing::Test {
 protected:
  GlobalState Global() const {
    std::vector<LowRank> layers;
    for (size_t l = 0; l < 2; ++l) {
      const at::Tensor U = golden_[Key("global.", l, "U")];
      const at::Tensor S = golden_[Key("global.", l, "S")];
      layers.push_back({golden_[Key("global.", l, "V")].t().contiguous(), U * S});
    }
    return State(**FindStrategy("exact-svd"), 8, layers);
  }
  Golden golden_{"aggregation/tail_carry.safetensors"};
};

TEST_F(TailCarryTest, ClientsAreSentTheirFirstSlots) {
  const GlobalState global = Global();
  const MemoryUpdates clients = Clients(golden_, 5, 2);
  for (size_t k = 0; k < 5; ++k) {
    const Result<AdapterBundle> sent = (*FindStrategy("exact-svd"))->Cut(global, clients.plan(k));
    ASSERT_TRUE(sent.ok()) << sent.status();
    for (size_t l = 0; l < 2; ++l) {
      const std::string prefix = "sent.client" + std::to_string(k) + ".";
      const at::Tensor wanted =
          at::matmul(golden_[Key(prefix, l, "B")], golden_[Key(prefix, l, "A")]);
      EXPECT_LE(MaxAbs(Product(sent->adapter->sites[l]) - wanted), kTolerance) << k;
    }
  }
}

TEST_F(TailCarryTest, TheMergeIsTheGlobalPlusTheMeanOfWhatClientsChanged) {
  const MemoryUpdates clients = Clients(golden_, 5, 2);
  const GlobalState global = Global();
  const StrategySettings carry{.name = "exact-svd"};
  const StrategySettings plain{.name = "exact-svd", .carry = false};
  for (size_t l = 0; l < 2; ++l) {
    const SiteMerge merge = Merge(carry, global, clients, l);
    const at::Tensor S = golden_[Key("expect.", l, "S")];
    EXPECT_LE(MaxAbs(merge.spectrum.narrow(0, 0, S.size(0)) - S), kTolerance);
    EXPECT_LE(MaxAbs(merge.before_truncation.Matrix() - golden_[Key("expect.", l, "dW")]),
              kTolerance);
    EXPECT_LE(MaxAbs(Product(merge.factors) - golden_[Key("expect.", l, "dW_r8")]), kTolerance);
    const SiteMerge flex = Merge(plain, global, clients, l);
    EXPECT_LE(MaxAbs(flex.before_truncation.Matrix() - golden_[Key("expect.", l, "flexlora_dW")]),
              kTolerance);
  }
}

TEST_F(TailCarryTest, IdleClientsKeepTheGlobalWithCarryAndCollapseItWithout) {
  const MemoryUpdates clients = Clients(golden_, 5, 2);
  const Strategy& strategy = **FindStrategy("exact-svd");
  for (const bool carry : {true, false}) {
    const StrategySettings settings{.name = "exact-svd", .carry = carry};
    GlobalState global = Global();
    for (int round = 0; round < 5; ++round) {
      std::vector<MemoryClient> idle;
      for (size_t k = 0; k < 5; ++k) {
        idle.push_back(*testing::IdleClient(strategy, global, clients.plan(k), clients.weight(k)));
      }
      const MemoryUpdates updates(std::move(idle));
      std::vector<LowRank> next;
      for (size_t l = 0; l < 2; ++l) next.push_back(Merge(settings, global, updates, l).factors);
      global = State(strategy, 8, next);
    }
    for (size_t l = 0; l < 2; ++l) {
      const at::Tensor S = global.adapter.sites[l].Get("B").norm(2, {0});
      const std::string wanted =
          carry ? Key("global.", l, "S") : Key("expect.", l, "flexlora_noop5_S");
      EXPECT_LE(MaxAbs(S - golden_[wanted]), kTolerance) << "layer " << l << " carry " << carry;
    }
  }
}

TEST(AggregationGoldenTest, FloraAgreesWithTheOfficialStackAndZeroPadding) {
  const Golden golden("flora/flora.safetensors");
  for (const std::string set : {"heter", "homo"}) {
    const auto count = static_cast<size_t>(golden[set + ".ranks"].size(0));
    std::vector<MemoryClient> clients;
    for (size_t k = 0; k < count; ++k) {
      const auto index = static_cast<int64_t>(k);
      const auto rank = golden[set + ".ranks"][index].item<int64_t>();
      // alpha = rank: the official stack is not scaled.
      MemoryClient client{
          {ClientId{"c" + std::to_string(k)}, testing::LoraSpec(rank, static_cast<double>(rank))},
          golden[set + ".n_examples"][index].item<double>(),
          {}};
      for (size_t m = 0; m < 2; ++m) {
        const std::string prefix = set + ".client" + std::to_string(k) + ".mod" + std::to_string(m);
        client.factors.push_back({golden[prefix + ".A"], golden[prefix + ".B"]});
      }
      clients.push_back(std::move(client));
    }
    const MemoryUpdates updates(std::move(clients));
    const Strategy& flora = **FindStrategy("flora");
    const Strategy& fedavg = **FindStrategy("fedavg");
    for (size_t m = 0; m < 2; ++m) {
      const std::string mod = ".mod" + std::to_string(m);
      const int64_t in = golden[set + ".stacked" + mod + ".A"].size(1);
      const int64_t out = golden[set + ".stacked" + mod + ".B"].size(0);
      const LowRank nothing{at::ones({1, in}, at::kDouble), at::zeros({out, 1}, at::kDouble)};
      const GlobalState global = State(flora, 8, {nothing, nothing});
      const StrategySettings settings{.name = "flora"};
      const SiteMerge merge =
          *flora.MergeSite({settings, global, updates}, std::vector<int64_t>{-1, -1}, m);
      EXPECT_LE(MaxAbs(merge.factors.A_RI - golden[set + ".stacked" + mod + ".A"]), 1e-5);
      EXPECT_LE(MaxAbs(merge.factors.B_OR - golden[set + ".stacked" + mod + ".B"]), 1e-5);
      EXPECT_LE(MaxAbs(Product(merge.factors) - golden[set + ".delta_W_unscaled" + mod]), 1e-5);
      const SiteMerge mean = *fedavg.MergeSite({settings, global, updates}, {}, m);
      EXPECT_LE(MaxAbs(Product(mean.factors) - golden[set + ".zero_pad_fedavg_delta_W" + mod]),
                1e-5);
      EXPECT_LE(MaxAbs(mean.factors.A_RI - golden[set + ".zero_pad" + mod + ".A"]), 1e-5);
    }
  }
}

}  // namespace
}  // namespace weft
