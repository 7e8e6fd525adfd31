// golden/aggregation/tail_carry: the default rule, exact-svd with the tail that low-rank clients
// were not sent carried over, and how it decays without. And that every tensor of
// golden/aggregation has a test.
//
// Shape legend: G global rank, Q number of singular values.

#include <algorithm>

#include <gtest/gtest.h>

#include "aggregator/strategies/factor_mean.h"
#include "aggregator/strategies/slots.h"
#include "tests/parity/methods/aggregation_world.h"

namespace weft::testing {
namespace {

constexpr char kTail[] = "aggregation/tail_carry.safetensors";

const Strategy& ExactSvd() { return **FindStrategy("exact-svd"); }

// G = U·diag(S)·Vᵀ as slots.
GlobalState GlobalOf(AggregationWorld& world) {
  std::vector<LowRank> factors;
  for (size_t l = 0; l < world.layers(); ++l) {
    const at::Tensor S = world.golden.Doubles(OfLayer("global.", l, "S"), {-1});
    const at::Tensor U = world.golden.Doubles(OfLayer("global.", l, "U"), {-1, S.size(0)});
    const at::Tensor V = world.golden.Doubles(OfLayer("global.", l, "V"), {-1, S.size(0)});
    factors.push_back({V.t(), U * S});
  }
  return StateOf("exact-svd", factors[0].A_RI.size(0), world.sites, factors);
}

// A client is sent its first slots, B over its scale; slots beyond the global rank are empty.
void ExpectSent(AggregationWorld& world, const GlobalState& global) {
  const MemoryUpdates updates = world.Updates();
  for (size_t k = 0; k < updates.size(); ++k) {
    const Result<AdapterBundle> bundle = ExactSvd().Cut(global, updates.plan(k));
    ASSERT_TRUE(bundle.ok()) << bundle.status();
    const std::string prefix = Str("sent.client", k, ".");
    for (size_t l = 0; l < world.layers(); ++l) {
      const LowRank wanted{world.golden.Doubles(OfLayer(prefix, l, "A")),
                           world.golden.Doubles(OfLayer(prefix, l, "B"))};
      const SiteState& site = bundle->adapter->sites[l];
      const int64_t shared = std::min(
          {wanted.A_RI.size(0), site.Get("A").size(0), global.adapter.sites[l].Get("A").size(0)});
      EXPECT_LE(MaxAbs(site.Get("A").narrow(0, 0, shared) - wanted.A_RI.narrow(0, 0, shared)),
                kExact);
      EXPECT_LE(MaxAbs(site.Get("B").narrow(1, 0, shared) - wanted.B_OR.narrow(1, 0, shared)),
                kExact);
      EXPECT_LE(MaxAbs(Product(site) - Product(wanted)), kExact);
    }
  }
}

void ExpectCoverage(AggregationWorld& world) {
  const MemoryUpdates updates = world.Updates();
  const Result<SiteStack> stack = updates.Stack(0);
  ASSERT_TRUE(stack.ok()) << stack.status();
  const int64_t slots = world.golden.Doubles("coverage", {-1}).size(0);
  ExpectNear(world.golden, "coverage", SlotOwners(*stack, WeightsOf(updates), slots));
}

void ExpectMerge(AggregationWorld& world, const GlobalState& global) {
  const StrategySettings carry{.name = "exact-svd"};
  const StrategySettings flex{.name = "exact-svd", .carry = false};
  for (size_t l = 0; l < world.layers(); ++l) {
    const SiteMerge merge = MergeLayer(carry, global, world.Updates(), l);
    ExpectSpectrum(world.golden, OfLayer("expect.", l, "S"), merge.spectrum);
    const std::string whole = OfLayer("expect.", l, "dW");
    ExpectNear(world.golden, whole, merge.before_truncation.Matrix());
    ExpectNear(world.golden, whole, merge.sum.Matrix() + merge.rest.Matrix());
    for (const std::string& rank : Variants(world.golden, whole + "_r", "")) {
      GlobalState cut = global;
      cut.init.rank = IntegerIn(rank);
      ExpectNear(world.golden, whole + "_r" + rank,
                 Product(MergeLayer(carry, cut, world.Updates(), l).factors));
    }
    const SiteMerge plain = MergeLayer(flex, global, world.Updates(), l);
    ExpectNear(world.golden, OfLayer("expect.", l, "flexlora_dW"),
               plain.before_truncation.Matrix());
  }
}

// The global adapter after rounds in which clients return exactly what they got.
GlobalState AfterIdleRounds(const AggregationWorld& world, GlobalState global, bool carry,
                            int64_t rounds) {
  const StrategySettings settings{.name = "exact-svd", .carry = carry};
  const int64_t rank = global.init.rank;
  for (int64_t round = 0; round < rounds; ++round) {
    std::vector<MemoryClient> idle;
    for (const MemoryClient& client : world.clients) {
      Result<MemoryClient> own = IdleClient(ExactSvd(), global, client.plan, client.weight);
      WEFT_CHECK(own.ok(), own.status());
      idle.push_back(std::move(own).value());
    }
    const MemoryUpdates updates(std::move(idle));
    std::vector<LowRank> next;
    for (size_t l = 0; l < world.layers(); ++l) {
      next.push_back(MergeLayer(settings, global, updates, l).factors);
    }
    global = StateOf("exact-svd", rank, world.sites, next);
  }
  return global;
}

void ExpectIdle(AggregationWorld& world, const GlobalState& global) {
  for (size_t l = 0; l < world.layers(); ++l) {
    const std::string stem = OfLayer("expect.", l, "flexlora_noop");
    for (const std::string& rounds : Variants(world.golden, stem, "_S")) {
      for (const bool carry : {true, false}) {
        const GlobalState after = AfterIdleRounds(world, global, carry, IntegerIn(rounds));
        const at::Tensor S = after.adapter.sites[l].Get("B").norm(2, {0});
        ExpectSpectrum(world.golden, carry ? OfLayer("global.", l, "S") : stem + rounds + "_S", S);
        if (!carry) continue;
        const double drift =
            Relative(Product(after.adapter.sites[l]), Product(global.adapter.sites[l]));
        EXPECT_LE(drift, kExact) << l;
      }
    }
  }
}

TEST(AggregationParity, TailCarryMergesWhatClientsChanged) {
  AggregationWorld world(kTail);
  const GlobalState global = GlobalOf(world);
  std::vector<double> scales;
  for (const MemoryClient& client : world.clients) {
    scales.push_back(ScalingFor(client.plan.adapter, world.sites[0].path));
  }
  ExpectNear(world.golden, "scale", scales);
  ExpectNear(world.golden, "p", WeightsOf(world.Updates()));
  ExpectSent(world, global);
  ExpectCoverage(world);
  ExpectMerge(world, global);
  ExpectIdle(world, global);
  world.golden.ExpectAllUsed();
}

struct Owner {
  std::string prefix;
  std::string test;  // as its name begins
};
struct OwnedFile {
  std::string name;
  std::vector<Owner> owners;
};

const std::vector<OwnedFile>& Owned() {
  static const auto* files =
      new std::vector<OwnedFile>{{"het_inputs",
                                  {{"client", "InputsOfMixed"},
                                   {"dW.client", "InputsOfMixed"},
                                   {"n", "InputsOfMixed"},
                                   {"p", "InputsOfMixed"},
                                   {"rank", "InputsOfMixed"},
                                   {"alpha", "InputsOfMixed"},
                                   {"scale", "InputsOfMixed"},
                                   {"server.", "FlTrust"},
                                   {"sketch.", "Sketch"}}},
                                 {"het_expected",
                                  {{"clip.", "Clipping"},
                                   {"dW.norm.", "InnerProducts"},
                                   {"fedavg_zeropad.", "ZeroPadded"},
                                   {"fedbuff.", "FedBuff"},
                                   {"fedex.", "FedExKeepsTheResidualOfMixed"},
                                   {"flexlora.", "FlexLora"},
                                   {"flora.", "FloraStacks"},
                                   {"florist.", "Florist"},
                                   {"fltrust.", "FlTrust"},
                                   {"geomed.", "GeometricMedian"},
                                   {"hetlora.", "HetLora"},
                                   {"krum.", "Krum"},
                                   {"median.", "MedianIs"},
                                   {"multikrum.", "MultiKrum"},
                                   {"rankpart.", "RankPartitioned"},
                                   {"rbla.", "Rbla"},
                                   {"robust.", "InnerProducts"},
                                   {"sketch.", "Sketch"},
                                   {"trimmed.", "TrimmedMean"}}},
                                 {"hom_inputs",
                                  {{"client", "InputsOfOne"},
                                   {"n", "InputsOfOne"},
                                   {"p", "InputsOfOne"},
                                   {"rank", "InputsOfOne"},
                                   {"alpha", "InputsOfOne"},
                                   {"global.", "FedAdamFollows"},
                                   {"opt.", "FedAdamFollows"}}},
                                 {"hom_expected",
                                  {{"bulyan.", "Bulyan"},
                                   {"factor_median.", "FactorMedian"},
                                   {"factor_trimmed.", "FactorTrimmed"},
                                   {"fedadagrad.", "FedAdagrad"},
                                   {"fedadam.", "FedAdamFollows"},
                                   {"fedadam_flower.", "FedAdamFlower"},
                                   {"fedavgm.", "FedAvgM"},
                                   {"fedex.", "FedExKeepsTheResidualOfOne"},
                                   {"fedit.", "FedIt"},
                                   {"fedrot.", "FedRot"},
                                   {"fedsvd.", "FedSvd"},
                                   {"fedyogi.", "FedYogi"},
                                   {"ffa.", "Ffa"},
                                   {"ideal.", "ExactRules"},
                                   {"lorafair_ridge.", "LoraFair"},
                                   {"rolora.", "RoLora"}}},
                                 {"tail_carry", {{"", "TailCarry"}}}};
  return *files;
}

bool HasTest(const std::string& begin) {
  const ::testing::TestSuite& suite = *::testing::UnitTest::GetInstance()->current_test_suite();
  for (int i = 0; i < suite.total_test_count(); ++i) {
    if (std::string_view(suite.GetTestInfo(i)->name()).starts_with(begin)) return true;
  }
  return false;
}

TEST(AggregationParity, EveryTensorBelongsToARuleThatIsTested) {
  for (const OwnedFile& file : Owned()) {
    GoldenSet golden("aggregation/" + file.name + ".safetensors");
    for (const Owner& owner : file.owners) {
      EXPECT_TRUE(HasTest(owner.test)) << owner.prefix << ": no AggregationParity." << owner.test;
      // A prefix that is no namespace is a tensor's whole name, or goes on with a number.
      const bool whole = !owner.prefix.empty() && !owner.prefix.ends_with('.');
      for (const std::string& name : golden.Names(owner.prefix)) {
        const std::string rest = name.substr(owner.prefix.size());
        if (!whole || rest.empty() || (rest[0] >= '0' && rest[0] <= '9')) golden.Use(name);
      }
    }
    golden.ExpectAllUsed();
  }
}

}  // namespace
}  // namespace weft::testing
