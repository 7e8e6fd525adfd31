// What each rule does beyond what all promise (tests/conformance/strategy_test.cc).

#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/state_block.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::IdleClient;
using testing::LoraSpec;
using testing::MaxAbs;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::Product;
using testing::RandomClient;
using testing::Relative;

const std::vector<LinearSite>& Sites() {
  static const auto* sites = new std::vector<LinearSite>{{MemoryUpdates::Path(0), 40, 24},
                                                         {MemoryUpdates::Path(1), 18, 36}};
  return *sites;
}

MergedRound Merge(const StrategySettings& settings, const GlobalState& global,
                  std::vector<MemoryClient> clients) {
  JobControl control;
  const MemoryUpdates updates(std::move(clients));
  Result<MergedRound> merged =
      MergeRound(**FindStrategy(settings.name), {settings, global, updates}, control);
  WEFT_CHECK(merged.ok(), merged.status());
  return std::move(merged).value();
}

GlobalState Init(const std::string& name, int64_t rank) {
  return *(*FindStrategy(name))->Init(LoraSpec(rank, 16), Sites(), 3);
}

std::vector<MemoryClient> Clients(uint64_t seed, std::vector<int64_t> ranks = {2, 4, 8}) {
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < ranks.size(); ++k) {
    clients.push_back(RandomClient("c" + std::to_string(k), ranks[k], 3.0 + static_cast<double>(k),
                                   Sites(), seed));
    clients.back().weight = 1.0 + static_cast<double>(k);
  }
  return clients;
}

double Drift(const GlobalState& a, const GlobalState& b) {
  double worst = 0;
  for (size_t i = 0; i < Sites().size(); ++i) {
    worst = std::max(worst, Relative(Product(a.adapter, i), Product(b.adapter, i)));
  }
  return worst;
}

TEST(SiteStackTest, ItIsTheWeightedSumOfWhatTheClientsSent) {
  const MemoryUpdates updates(Clients(1));
  StackMemory memory;
  // Wide, narrow and wide again, in the same memory.
  for (const size_t site : {0, 1, 0}) {
    const SiteStack stack = *updates.StackIn(memory, site);
    EXPECT_EQ(stack.begins, (std::vector<int64_t>{0, 2, 6, 14}));
    at::Tensor sum = at::zeros({Sites()[site].out, Sites()[site].in}, at::kDouble);
    for (size_t k = 0; k < updates.size(); ++k) {
      const at::Tensor own = Product(*updates.Factors(k, site)) * updates.weight(k);
      EXPECT_LE(Relative(Product(stack.Of(k)), own), 1e-15);
      sum += own;
    }
    EXPECT_LE(Relative(Product(stack.factors), sum), 1e-15);
  }
  const void* const place = memory.A.const_data_ptr();
  const SiteStack again = *updates.StackIn(memory, 0);
  EXPECT_EQ(again.factors.A_RI.const_data_ptr(), place) << "memory of its own once it is enough";
}

TEST(ExactSvdTest, FiftyRoundsOfIdleClientsOfAnyRankLeaveTheGlobalFixed) {
  for (const char* split : {"left", "balanced"}) {
    const StrategySettings settings{.name = "exact-svd", .split = split};
    const GlobalState start = Merge(settings, Init("exact-svd", 8), Clients(1)).global;
    GlobalState global = start;
    for (uint64_t round = 0; round < 50; ++round) {
      std::vector<MemoryClient> idle;
      for (const MemoryClient& client : Clients(round)) {
        idle.push_back(
            *IdleClient(**FindStrategy("exact-svd"), global, client.plan, client.weight));
      }
      if (round % 3 == 1) idle.pop_back();  // not everyone takes part in every round
      global = Merge(settings, global, std::move(idle)).global;
    }
    EXPECT_LE(Drift(global, start), 1e-6) << split;
  }
}

TEST(ExactSvdTest, WithoutCarryTheTailCollapses) {
  const StrategySettings settings{.name = "exact-svd", .carry = false};
  const GlobalState start = Merge(settings, Init("exact-svd", 8), Clients(1)).global;
  std::vector<MemoryClient> idle;
  for (const MemoryClient& client : Clients(1)) {
    idle.push_back(*IdleClient(**FindStrategy("exact-svd"), start, client.plan, client.weight));
  }
  EXPECT_GT(Drift(Merge(settings, start, std::move(idle)).global, start), 0.05);
}

TEST(ExactSvdTest, TheGlobalRankIsKeptAndTheTailIsReported) {
  const StrategySettings settings{.name = "exact-svd"};
  const MergedRound merged = Merge(settings, Init("exact-svd", 5), Clients(1));
  EXPECT_EQ(merged.certificate.rank, 5);
  EXPECT_GT(merged.certificate.tail_energy, 0.001);
  // Cutting is the only error: its square is the tail.
  EXPECT_NEAR(merged.certificate.error_published, std::sqrt(merged.certificate.tail_energy), 1e-6);
  EXPECT_LE(merged.certificate.error_before_truncation, 1e-12);
  EXPECT_GT(merged.certificate.effective_rank, 1);
}

TEST(ExactSvdTest, AnEnergyShareChoosesTheRankOfEachSiteBelowTheGlobalRank) {
  const StrategySettings all{.name = "exact-svd"};
  const StrategySettings most{.name = "exact-svd", .energy = 0.9};
  const MergedRound full = Merge(all, Init("exact-svd", 14), Clients(1));
  const MergedRound cut = Merge(most, Init("exact-svd", 14), Clients(1));
  EXPECT_LT(cut.certificate.rank, full.certificate.rank);
  for (const Certificate::Site& site : cut.certificate.sites) {
    EXPECT_LE(site.tail_energy, 0.1);
    EXPECT_GT(site.tail_energy, 0);
  }
  // A client of larger rank than a site has left still gets slots that can learn.
  const AdapterBundle bundle =
      *(*FindStrategy("exact-svd"))->Cut(cut.global, {ClientId{"x"}, LoraSpec(14, 14)});
  EXPECT_EQ(bundle.adapter->sites[0].Get("A").size(0), 14);
  EXPECT_LE(Relative(Product(*bundle.adapter, 0), Product(cut.global.adapter, 0)), 1e-6);
  const Result<GlobalState> restored = DecodeState(EncodeState(cut.global)->bytes, "exact-svd");
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(Drift(*restored, cut.global), 0);
}

TEST(ExactSvdTest, TheSplitsDifferInFactorsAndAgreeInProducts) {
  const StrategySettings left{.name = "exact-svd"};
  const StrategySettings balanced{.name = "exact-svd", .split = "balanced"};
  const GlobalState a = Merge(left, Init("exact-svd", 8), Clients(1)).global;
  const GlobalState b = Merge(balanced, Init("exact-svd", 8), Clients(1)).global;
  EXPECT_LE(Drift(a, b), 1e-6);
  for (size_t i = 0; i < Sites().size(); ++i) {
    EXPECT_LE(MaxAbs(a.adapter.sites[i].Get("A").norm(2, {1}) - 1), 1e-6);
    EXPECT_LE(
        MaxAbs(b.adapter.sites[i].Get("A").norm(2, {1}) - b.adapter.sites[i].Get("B").norm(2, {0})),
        1e-4);
  }
}

TEST(ExactSvdTest, TheInitialSlotsAreAFreshAdapterAtTheGlobalRank) {
  const GlobalState global = Init("exact-svd", 20);
  EXPECT_EQ(global.adapter.sites[0].Get("A").size(0), 20);
  EXPECT_EQ(global.adapter.sites[1].Get("A").size(0), 18) << "capped by the layer's inputs";
  const AdapterBundle bundle =
      *(*FindStrategy("exact-svd"))->Cut(global, {ClientId{"x"}, LoraSpec(4, 8)});
  EXPECT_EQ(
      MaxAbs(bundle.adapter->sites[0].Get("A") - global.adapter.sites[0].Get("A").narrow(0, 0, 4)),
      0);
  EXPECT_EQ(MaxAbs(bundle.adapter->sites[0].Get("B")), 0);
}

TEST(FedAvgTest, SlotsThatNobodyTrainedAreRevivedForTheNextLargeClient) {
  const StrategySettings settings{.name = "fedavg"};
  const GlobalState global = Merge(settings, Init("fedavg", 8), Clients(1, {2, 4})).global;
  EXPECT_EQ(MaxAbs(global.adapter.sites[0].Get("A").narrow(0, 4, 4)), 0);
  const AdapterBundle bundle =
      *(*FindStrategy("fedavg"))->Cut(global, {ClientId{"x"}, LoraSpec(8, 8)});
  EXPECT_GT(bundle.adapter->sites[0].Get("A").norm(2, {1}).min().item<double>(), 0.1);
  EXPECT_LE(Relative(Product(*bundle.adapter, 0), Product(global.adapter, 0)), 1e-6);
}

TEST(FedAvgTest, ItIsExactToItsOwnRuleAndSaysHowFarThatIsFromTheIdealMean) {
  const MergedRound merged = Merge({.name = "fedavg"}, Init("fedavg", 8), Clients(1));
  EXPECT_LE(merged.certificate.error_published, 1e-6);
  EXPECT_GT(merged.certificate.error_to_ideal, 0.5);
  EXPECT_EQ(merged.certificate.tail_energy, 0);
}

TEST(FedAvgTest, AnotherMethodIsRefusedByTheClientsName) {
  std::vector<MemoryClient> clients = Clients(1);
  clients[1].plan.adapter.method = "nola";
  JobControl control;
  const MemoryUpdates updates(std::move(clients));
  const StrategySettings settings{.name = "fedavg"};
  const GlobalState global = Init("fedavg", 8);
  const Result<MergedRound> merged =
      MergeRound(**FindStrategy("fedavg"), {settings, global, updates}, control);
  ASSERT_FALSE(merged.ok());
}

TEST(FloraTest, EveryRoundsGrowthIsExactThroughStackingAndRecompression) {
  const StrategySettings settings{.name = "flora"};
  GlobalState global = Init("flora", 8);
  std::vector<at::Tensor> wanted(Sites().size());
  for (uint64_t round = 1; round <= 8; ++round) {
    const MemoryUpdates updates(Clients(round));
    for (size_t i = 0; i < Sites().size(); ++i) {
      for (size_t k = 0; k < updates.size(); ++k) {
        const at::Tensor growth = Product(*updates.Factors(k, i)) * updates.weight(k);
        wanted[i] = wanted[i].defined() ? wanted[i] + growth : growth;
      }
    }
    const GlobalState before = global;
    const MergedRound merged = Merge(settings, global, Clients(round));
    global = merged.global;
    EXPECT_LE(merged.certificate.error_published, 1e-6) << "round " << round;
    EXPECT_LE(merged.certificate.error_before_truncation, 1e-6);
    for (size_t i = 0; i < Sites().size(); ++i) {
      EXPECT_LE(Relative(Product(global.adapter, i), wanted[i]), 1e-6) << "round " << round;
      EXPECT_LE(global.adapter.sites[i].Get("A").size(0), std::min(Sites()[i].in, Sites()[i].out));
    }
    const AdapterBundle bundle =
        *(*FindStrategy("flora"))->Cut(global, {ClientId{"x"}, LoraSpec(4, 8)});
    EXPECT_FALSE(bundle.adapter.has_value());
    EXPECT_EQ(MaxAbs(Product(*bundle.frozen, 0) - Product(global.adapter, 0)), 0);
  }
}

TEST(FloraTest, StackingLeavesTheOldSlotsAsTheyWereToTheBit) {
  const StrategySettings settings{.name = "flora"};
  const GlobalState one = Merge(settings, Init("flora", 4), Clients(1, {2, 3})).global;
  const GlobalState two = Merge(settings, one, Clients(2, {2, 3})).global;
  for (size_t i = 0; i < Sites().size(); ++i) {
    ASSERT_EQ(one.adapter.sites[i].Get("A").size(0), 5);
    ASSERT_EQ(two.adapter.sites[i].Get("A").size(0), 10);
    EXPECT_EQ(MaxAbs(two.adapter.sites[i].Get("A").narrow(0, 0, 5) - one.adapter.sites[i].Get("A")),
              0);
    EXPECT_EQ(MaxAbs(two.adapter.sites[i].Get("B").narrow(1, 0, 5) - one.adapter.sites[i].Get("B")),
              0);
  }
}

TEST(FloraTest, BeyondItsByteBudgetItCutsTheSmallestSlotsAndTheCertificateSaysSo) {
  // Two layers of 700×700: a full stack takes 2·1400·4·R bytes, so 1 MB holds 89 slots.
  const std::vector<LinearSite> sites = {{MemoryUpdates::Path(0), 700, 700},
                                         {MemoryUpdates::Path(1), 700, 700}};
  const StrategySettings settings{.name = "flora", .stack_budget_mb = 1};
  const Strategy& flora = **FindStrategy("flora");
  GlobalState global = *flora.Init(LoraSpec(60, 60), sites, 1);
  std::vector<MemoryClient> clients = {RandomClient("a", 60, 60, sites),
                                       RandomClient("b", 60, 60, sites)};
  for (LowRank& factors : clients[1].factors) factors.B_OR = factors.B_OR * 0.01;
  JobControl control;
  const MemoryUpdates updates(std::move(clients));
  const Result<MergedRound> merged = MergeRound(flora, {settings, global, updates}, control);
  ASSERT_TRUE(merged.ok()) << merged.status();
  double bytes = 0;
  for (const SiteState& site : merged->global.adapter.sites) {
    bytes += 4.0 * static_cast<double>(site.Get("A").numel() + site.Get("B").numel());
  }
  EXPECT_LE(bytes, 1e6);
  EXPECT_GT(bytes, 0.95e6);
  EXPECT_GT(merged->certificate.tail_energy, 1e-6);
  EXPECT_NEAR(merged->certificate.error_published, std::sqrt(merged->certificate.tail_energy),
              1e-5);
  EXPECT_LE(merged->certificate.error_before_truncation, 1e-6);
}

TEST(RoundMergeTest, ValuesThatOverflowFloat32AreRefusedAndNothingIsPublished) {
  std::vector<MemoryClient> clients = Clients(1);
  for (LowRank& factors : clients[0].factors) factors.B_OR = factors.B_OR * 1e39;
  for (const Strategy* strategy : testing::ProductStrategies()) {
    JobControl control;
    const MemoryUpdates updates(clients);
    const StrategySettings settings{.name = std::string(strategy->name())};
    const GlobalState global = Init(settings.name, 8);
    const Result<MergedRound> merged = MergeRound(*strategy, {settings, global, updates}, control);
    ASSERT_FALSE(merged.ok()) << strategy->name();
    EXPECT_EQ(merged.status().code(), Code::kInvalidArgument);
    EXPECT_NE(merged.status().message().find("site layers.0.q_proj"), std::string::npos)
        << merged.status();
  }
}

TEST(RoundMergeTest, ACancelledMergeEndsAsCancelled) {
  JobControl control;
  control.cancelled = true;
  const MemoryUpdates updates(Clients(1));
  const StrategySettings settings;
  const GlobalState global = Init("exact-svd", 8);
  const Result<MergedRound> merged =
      MergeRound(**FindStrategy("exact-svd"), {settings, global, updates}, control);
  EXPECT_EQ(merged.status().code(), Code::kCancelled);
}

TEST(ClientWeightsTest, CountsAreCappedAndAddUpToOne) {
  std::vector<UpdateHeader> headers(3);
  for (size_t k = 0; k < 3; ++k) {
    headers[k].client.name = "c" + std::to_string(k);
    headers[k].num_examples = 100 * (k + 1);
    headers[k].label_tokens = 10 * (3 - k);
  }
  const auto near = [](const Result<std::vector<double>>& got, const std::vector<double>& wanted) {
    ASSERT_TRUE(got.ok()) << got.status();
    for (size_t k = 0; k < 3; ++k) EXPECT_NEAR((*got)[k], wanted[k], 1e-15);
  };
  near(ClientWeights(headers, "examples", 0), {1.0 / 6, 2.0 / 6, 3.0 / 6});
  near(ClientWeights(headers, "examples", 150), {100.0 / 400, 150.0 / 400, 150.0 / 400});
  near(ClientWeights(headers, "tokens", 1), {3.0 / 6, 2.0 / 6, 1.0 / 6});
  near(ClientWeights(headers, "uniform", 1), {1.0 / 3, 1.0 / 3, 1.0 / 3});
  EXPECT_FALSE(ClientWeights(headers, "loss", 0).ok());
  EXPECT_FALSE(ClientWeights({}, "uniform", 0).ok());
  headers[1].num_examples = 0;
  const Status zero = ClientWeights(headers, "examples", 0).status();
  EXPECT_NE(zero.message().find("client c1"), std::string::npos) << zero;
}

TEST(StrategySettingsTest, WhatDoesNotGoTogetherIsRefusedWithTheReason) {
  struct Case {
    StrategySettings settings;
    bool keep_optimizer;
    std::string message;
  };
  const std::vector<Case> cases = {
      {{.name = "krum"}, false, "\"krum\" is unknown; known: exact-svd, fedask, fedavg"},
      {{.name = "exact-svd", .global_rank = -1}, false, "global-rank is -1"},
      {{.name = "exact-svd", .energy = 1.5}, false, "energy is 1.5"},
      {{.name = "exact-svd", .energy = std::nan("")}, false, "energy is"},
      {{.name = "exact-svd", .slots = "first"}, false, "slots is \"first\""},
      {{.name = "exact-svd", .carry = false, .slots = "random"}, false, "need the carry"},
      {{.name = "exact-svd", .absorb = "raw"}, false, "use one of: fedavg"},
      {{.name = "lora-fair", .ridge = 0}, false, "ridge is 0"},
      {{.name = "fedsvd", .period = 0}, false, "period is 0"},
      {{.name = "fedavg", .robust = {.rule = "krum"}}, false, "use exact-svd, flora or ffa"},
      {{.name = "exact-svd", .carry = false, .robust = {.clip = "median"}}, false, "without carry"},
      {{.name = "exact-svd", .robust = {.keep = 3}}, false, "use multi-krum"},
      {{.name = "exact-svd", .robust = {.rule = "fltrust"}}, false, "name it in robust.trusted"},
      {{.name = "exact-svd", .robust = {.clip_norm = 2}}, false, "clip is not \"fixed\""},
      {{.name = "fedavg", .optimizer = {.name = "adam"}}, false, "what clients hold"},
      {{.name = "fedsvd", .optimizer = {.name = "momentum"}}, false, "use it with ffa"},
      {{.name = "exact-svd", .split = "right"}, false, "split is \"right\""},
      {{.name = "exact-svd", .stack_budget_mb = 5}, false, "use one of: fedex, fedmomentum, flora"},
      {{.name = "fedavg", .global_rank = 4}, false, "use one of: exact-svd, fedask, raflora"},
      {{.name = "fedavg", .carry = false}, false, "strategy.carry is set"},
      {{.name = "flora", .energy = 0.9}, false, "strategy.energy is set"},
      {{.name = "flora", .split = "balanced"}, false, "strategy.split is set"},
      {{.name = "flora", .stack_budget_mb = 0}, false, "stack-budget-mb is 0"},
      {{.name = "exact-svd"}, true, "keep-optimizer"},
      {{.name = "flora"}, true, "keep-optimizer"},
  };
  for (const Case& c : cases) {
    LocalTraining training;
    training.keep_optimizer = c.keep_optimizer;
    const Status status = CheckStrategySettings(c.settings, training);
    EXPECT_FALSE(status.ok()) << c.message;
    EXPECT_NE(status.message().find(c.message), std::string::npos) << status;
  }
  LocalTraining keep;
  keep.keep_optimizer = true;
  EXPECT_TRUE(CheckStrategySettings({.name = "fedavg"}, keep).ok());
}

}  // namespace
}  // namespace weft
