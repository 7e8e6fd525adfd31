// Rules over many rounds: what they promise of one round must not wear off.

#include <cmath>
#include <iostream>

#include <gtest/gtest.h>

#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "common/base/str.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::LoraSpec;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::Product;
using testing::RandomClient;
using testing::RandomMatrix;
using testing::Relative;

// Narrow enough that stacks outgrow them within a few rounds.
const std::vector<LinearSite>& Sites() {
  static const auto* sites = new std::vector<LinearSite>{{MemoryUpdates::Path(0), 40, 56},
                                                         {MemoryUpdates::Path(1), 36, 24}};
  return *sites;
}

GlobalState Init(const std::string& name, int64_t rank) {
  return *(*FindStrategy(name))->Init(LoraSpec(rank, 2.0 * static_cast<double>(rank)), Sites(), 3);
}

Result<MergedRound> Merge(const StrategySettings& settings, const GlobalState& global,
                          const UpdateSource& updates, uint64_t round = 1) {
  JobControl control;
  return MergeRound(**FindStrategy(settings.name), {settings, global, updates, round}, control);
}

// A client that has trained what this rule sent it.
MemoryClient Member(const StrategySettings& settings, const GlobalState& global,
                    const std::string& name, int64_t rank, uint64_t round) {
  const Strategy& strategy = **FindStrategy(settings.name);
  if (!strategy.traits().mixed_ranks) rank = global.init.rank;
  const double alpha = 2.0 * static_cast<double>(rank);
  return testing::TrainedClient(
      strategy, global, testing::PlanFor(strategy, settings, name, rank, alpha, round), round);
}

// Three clients of mixed ranks whose updates have about this size.
std::vector<MemoryClient> Clients(uint64_t round, double size) {
  std::vector<MemoryClient> clients;
  for (const auto& [name, rank] : {std::pair("a", 4), std::pair("b", 8), std::pair("c", 16)}) {
    clients.push_back(RandomClient(name, rank, 2.0 * rank, Sites(), round));
    for (LowRank& factors : clients.back().factors) factors.B_OR = factors.B_OR * size;
    clients.back().weight = 1.0 + static_cast<double>((round * static_cast<uint64_t>(rank)) % 5);
  }
  return clients;
}

TEST(LongRunsTest, FloraIsExactForFortyRoundsOfStackingAndRecompression) {
  const StrategySettings settings{.name = "flora"};
  GlobalState global = Init("flora", 16);
  std::vector<at::Tensor> wanted;
  for (const LinearSite& site : Sites())
    wanted.push_back(at::zeros({site.out, site.in}, at::kDouble));
  int64_t recompressed = 0;
  for (uint64_t round = 1; round <= 40; ++round) {
    const MemoryUpdates updates(Clients(round, 1));
    for (size_t i = 0; i < Sites().size(); ++i) {
      for (size_t k = 0; k < updates.size(); ++k) {
        wanted[i] += Product(*updates.Factors(k, i)) * updates.weight(k);
      }
    }
    const int64_t before = global.adapter.sites[0].Get("A").size(0);
    const Result<MergedRound> merged = Merge(settings, global, updates);
    ASSERT_TRUE(merged.ok()) << merged.status();
    global = merged->global;
    recompressed += global.adapter.sites[0].Get("A").size(0) < before + 28;
    EXPECT_LE(merged->certificate.error_before_truncation, 1e-6) << round;
    EXPECT_LE(merged->certificate.error_published, 1e-6) << round;
    EXPECT_EQ(merged->certificate.tail_energy, 0) << round;
    for (size_t i = 0; i < Sites().size(); ++i) {
      EXPECT_LE(Relative(Product(global.adapter, i), wanted[i]), 1e-6) << round;
      EXPECT_LE(global.adapter.sites[i].Get("A").size(0), std::min(Sites()[i].in, Sites()[i].out));
    }
  }
  EXPECT_GT(recompressed, 30);
}

TEST(LongRunsTest, FloraOfShrinkingUpdatesIsAsExactAsFloat32Allows) {
  // The frozen adapter is float32: rounding it anew costs 2^-24 of ITS size a round, which late in
  // a run is more of a small update's own.
  const StrategySettings settings{.name = "flora"};
  GlobalState global = Init("flora", 16);
  for (uint64_t round = 1; round <= 30; ++round) {
    const MemoryUpdates updates(Clients(round, std::pow(0.8, static_cast<double>(round))));
    const Result<MergedRound> merged = Merge(settings, global, updates);
    ASSERT_TRUE(merged.ok()) << merged.status();
    global = merged->global;
    double whole = 0;
    for (size_t i = 0; i < Sites().size(); ++i) {
      whole += Product(global.adapter, i).square().sum().item<double>();
    }
    const double ratio = std::sqrt(whole) / merged->certificate.target_norm;
    EXPECT_LE(merged->certificate.error_published, 1e-6 + 1.2e-7 * ratio) << round;
    EXPECT_LE(merged->certificate.error_before_truncation, 1e-6) << round;
  }
}

TEST(LongRunsTest, ExactSvdStaysExactBeforeTruncationAndItsErrorIsItsTail) {
  const StrategySettings settings{.name = "exact-svd"};
  GlobalState global = Init("exact-svd", 16);
  for (uint64_t round = 1; round <= 30; ++round) {
    // Each client changes what it was sent a little, as training does.
    std::vector<MemoryClient> clients;
    for (const auto& [name, rank] : {std::pair("a", 4), std::pair("b", 8), std::pair("c", 16)}) {
      MemoryClient client{{ClientId{name}, LoraSpec(rank, 2.0 * rank)}, 1, {}};
      const AdapterBundle sent = *(*FindStrategy("exact-svd"))->Cut(global, client.plan);
      for (const SiteState& site : sent.adapter->sites) {
        const auto noise = [&](const at::Tensor& like, const char* factor) {
          return 0.1 *
                 RandomMatrix(like.size(0), like.size(1), Str(name, factor, site.site.path), round);
        };
        client.factors.push_back({site.Get("A").to(at::kDouble) + noise(site.Get("A"), "A"),
                                  site.Get("B").to(at::kDouble) + noise(site.Get("B"), "B")});
      }
      clients.push_back(std::move(client));
    }
    const Result<MergedRound> merged = Merge(settings, global, MemoryUpdates(std::move(clients)));
    ASSERT_TRUE(merged.ok()) << merged.status();
    const Certificate& certificate = merged->certificate;
    EXPECT_LE(certificate.error_before_truncation, 1e-6) << round;
    EXPECT_NEAR(certificate.error_published, std::sqrt(certificate.tail_energy), 1e-6) << round;
    EXPECT_EQ(certificate.rank, 16);
    global = merged->global;
  }
}

// How far fifty rounds move a global adapter in which clients of mixed ranks return what they got.
double DriftOfIdleRounds(const StrategySettings& settings) {
  const Strategy& strategy = **FindStrategy(settings.name);
  GlobalState global = Init(settings.name, 16);
  for (uint64_t round = 1; round <= 2; ++round) {
    global = Merge(settings, global, MemoryUpdates(Clients(round, 1)), round)->global;
  }
  const GlobalState start = global;
  for (uint64_t round = 3; round <= 52; ++round) {
    std::vector<MemoryClient> idle;
    for (const auto& [name, rank] : {std::pair("a", 2), std::pair("b", 4), std::pair("c", 8)}) {
      const ClientPlan plan = testing::PlanFor(strategy, settings, name, rank, 2.0 * rank, round);
      idle.push_back(*testing::IdleClient(strategy, global, plan, rank));
    }
    global = Merge(settings, global, MemoryUpdates(std::move(idle)), round)->global;
  }
  double worst = 0;
  for (size_t i = 0; i < Sites().size(); ++i) {
    worst = std::max(worst, Relative(Product(global.adapter, i), Product(start.adapter, i)));
  }
  return worst;
}

TEST(LongRunsTest, FiftyIdleRoundsOfMixedRanksLeaveTheGlobalWhereItWas) {
  for (const StrategySettings& settings :
       {StrategySettings{.name = "exact-svd"},
        StrategySettings{.name = "exact-svd", .slots = "random"},
        StrategySettings{.name = "exact-svd", .tail_on_client = true},
        StrategySettings{.name = "fedmomentum"}, StrategySettings{.name = "fedex"}}) {
    const double drift = DriftOfIdleRounds(settings);
    std::cout << settings.name << ", slots " << settings.slots << ": drift " << drift << "\n";
    EXPECT_LT(drift, 1e-6) << settings.name << " " << settings.slots;
  }
  // The rule without its carry (FlexLoRA) forgets what nobody was sent.
  const double flex = DriftOfIdleRounds({.name = "exact-svd", .carry = false});
  std::cout << "without carry (FlexLoRA): " << flex << "\n";
  EXPECT_GT(flex, 0.5);
}

TEST(LongRunsTest, EveryRuleIsTheSameBitsWithAndWithoutARestartInEveryRound) {
  for (const Strategy* strategy : testing::ProductStrategies()) {
    const StrategySettings settings{.name = std::string(strategy->name())};
    GlobalState straight = Init(settings.name, 16);
    Blob saved = EncodeState(straight)->bytes;
    for (uint64_t round = 1; round <= 12; ++round) {
      const MemoryUpdates updates({Member(settings, straight, "a", 4, round),
                                   Member(settings, straight, "b", 8, round),
                                   Member(settings, straight, "c", 16, round)});
      straight = Merge(settings, straight, updates, round)->global;
      const GlobalState restored = *DecodeState(saved, settings.name);
      saved = EncodeState(Merge(settings, restored, updates, round)->global)->bytes;
      ASSERT_EQ(EncodeState(straight)->bytes.view(), saved.view()) << settings.name << " " << round;
    }
  }
}

TEST(LongRunsTest, AClientThatComesAndGoesDisturbsNoRule) {
  // Cohorts of one to three clients of changing ranks; the certificate holds in every round.
  for (const Strategy* strategy : testing::ProductStrategies()) {
    const StrategySettings settings{.name = std::string(strategy->name())};
    GlobalState global = Init(settings.name, 16);
    RandomStream draw(9);
    for (uint64_t round = 1; round <= 20; ++round) {
      std::vector<MemoryClient> clients;
      for (uint64_t k = 0; k <= draw.Below(3); ++k) {
        const auto rank = static_cast<int64_t>(1 + draw.Below(16));
        clients.push_back(Member(settings, global, Str("c", k), rank, round));
        clients.back().weight = 0.1 + draw.Uniform();
      }
      const Result<MergedRound> merged =
          Merge(settings, global, MemoryUpdates(std::move(clients)), round);
      ASSERT_TRUE(merged.ok()) << settings.name << " " << round << merged.status();
      EXPECT_LE(merged->certificate.error_before_truncation, 1e-6) << settings.name << round;
      for (const SiteState& site : merged->global.adapter.sites) {
        EXPECT_TRUE(at::isfinite(site.Get("A")).all().item<bool>());
        EXPECT_LE(site.Get("A").size(0), std::min(site.site.in, site.site.out));
      }
      global = merged->global;
    }
  }
}

}  // namespace
}  // namespace weft
