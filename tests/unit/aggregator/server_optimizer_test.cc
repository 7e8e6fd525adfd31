#include "aggregator/strategies/server_optimizer.h"

#include <gtest/gtest.h>

#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::LoraSpec;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::PlanFor;
using testing::Product;
using testing::RandomMatrix;
using testing::Relative;
using testing::TrainedClient;
using testing::TwoLayers;

LowRankSum Random(uint64_t seed) {
  LowRankSum sum(12, 20);
  sum.Add({RandomMatrix(3, 20, "A", seed), RandomMatrix(12, 3, "B", seed)});
  return sum;
}

TEST(ServerOptimizerTest, MomentumOfProductsIsThatOfTheMatrices) {
  const ServerOptimizerSettings settings{.name = "momentum", .lr = 0.5, .beta1 = 0.8};
  std::vector<NamedTensor> memory;
  at::Tensor m = at::zeros({12, 20}, at::kDouble);
  for (uint64_t step = 1; step <= 4; ++step) {
    const LowRankSum d = Random(step);
    m = 0.8 * m + d.Matrix();
    EXPECT_LE(Relative(FollowProduct(settings, d, 12, memory).Matrix(), 0.5 * m), 1e-6) << step;
  }
}

TEST(ServerOptimizerTest, ADirectionAndAScaleOfOneSiteAreAdamsWhereOneNumberIsKept) {
  for (const std::string name : {"adam", "yogi", "adagrad"}) {
    const ServerOptimizerSettings settings{.name = name, .lr = 0.1};
    std::vector<NamedTensor> memory;
    // The same in numbers: v of ‖D‖²/(O·I), m of the matrices.
    Moments moments;
    at::Tensor m = at::zeros({12, 20}, at::kDouble);
    double v = -1;
    double tau = 0;
    for (uint64_t step = 1; step <= 4; ++step) {
      const at::Tensor d = Random(step).Matrix();
      const double square = d.square().mean().item<double>();
      if (step == 1) {
        tau = 1e-3 * std::sqrt(square);
        v = tau * tau;
      }
      if (name == "adagrad") v += square;
      if (name == "adam") v = 0.99 * v + 0.01 * square;
      if (name == "yogi") v -= 0.01 * square * (v > square ? 1 : -1);
      m = name == "adagrad" ? d : 0.9 * m + 0.1 * d;
      const at::Tensor wanted = 0.1 * m / (std::sqrt(v) + tau);
      EXPECT_LE(Relative(FollowProduct(settings, Random(step), 12, memory).Matrix(), wanted), 1e-5)
          << name << " " << step;
    }
  }
}

TEST(ServerOptimizerTest, NothingChangedAtFirstLeavesNoTrace) {
  const ServerOptimizerSettings settings{.name = "adam"};
  std::vector<NamedTensor> memory;
  LowRankSum nothing(12, 20);
  EXPECT_EQ(FrobeniusNorm(FollowProduct(settings, nothing, 4, memory)), 0);
  EXPECT_TRUE(memory.empty());
  EXPECT_EQ(
      FollowElements(settings, at::zeros({3, 2}, at::kDouble), memory).abs().max().item<double>(),
      0);
  EXPECT_TRUE(memory.empty());
}

// Over rounds, with states saved and restored between them.
TEST(ServerOptimizerTest, WhatItRemembersIsInTheStateAndEveryRoundGoesOnFromIt) {
  for (const std::string strategy_name : {"exact-svd", "flora", "ffa", "rolora", "florist"}) {
    const Strategy& strategy = **FindStrategy(strategy_name);
    for (const std::string name : {"momentum", "adam", "yogi", "adagrad"}) {
      StrategySettings settings{.name = strategy_name, .optimizer = {.name = name, .lr = 0.3}};
      ASSERT_TRUE(CheckStrategySettings(settings, {}).ok());
      GlobalState straight = *strategy.Init(LoraSpec(4, 8), TwoLayers(), 3);
      Blob saved = EncodeState(straight)->bytes;
      for (uint64_t round = 1; round <= 4; ++round) {
        std::vector<MemoryClient> clients;
        for (const std::string client : {"a", "b"}) {
          const ClientPlan plan = PlanFor(strategy, settings, client, 4, 8, round);
          clients.push_back(TrainedClient(strategy, straight, plan, round));
        }
        const MemoryUpdates updates(std::move(clients));
        JobControl control;
        Result<MergedRound> merged =
            MergeRound(strategy, {settings, straight, updates, round}, control);
        ASSERT_TRUE(merged.ok()) << merged.status();
        EXPECT_FALSE(merged->global.memory.empty()) << strategy_name << " " << name;
        EXPECT_LE(merged->certificate.error_before_truncation, 1e-6)
            << strategy_name << " " << name;
        straight = std::move(merged->global);
        const Result<GlobalState> restored = DecodeState(saved, strategy_name);
        ASSERT_TRUE(restored.ok()) << restored.status();
        Result<MergedRound> again =
            MergeRound(strategy, {settings, *restored, updates, round}, control);
        ASSERT_TRUE(again.ok()) << again.status();
        saved = EncodeState(again->global)->bytes;
      }
      EXPECT_EQ(EncodeState(straight)->bytes.view(), saved.view()) << strategy_name << " " << name;
    }
  }
}

// Nobody is trusted in the last round: no step, and the memory is what it was.
TEST(ServerOptimizerTest, ARoundInWhichNobodyCountsTakesNoStepAndForgetsNothing) {
  for (const std::string name : {"exact-svd", "flora", "ffa"}) {
    const Strategy& strategy = **FindStrategy(name);
    StrategySettings settings{.name = name, .optimizer = {.name = "momentum"}};
    GlobalState global = *strategy.Init(LoraSpec(4, 8), TwoLayers(), 3);
    JobControl control;
    const auto round = [&] {
      const ClientPlan plan = PlanFor(strategy, settings, "a", 4, 8, 1);
      const MemoryUpdates updates({TrainedClient(strategy, global, plan)});
      Result<MergedRound> merged = MergeRound(strategy, {settings, global, updates}, control);
      WEFT_CHECK(merged.ok(), merged.status());
      return std::move(merged->global);
    };
    global = round();
    ASSERT_FALSE(global.memory.empty()) << name;
    settings.robust.rule = "fltrust";
    settings.robust.trusted = "absent";
    const GlobalState after = round();
    ASSERT_EQ(after.memory.size(), global.memory.size()) << name;
    for (size_t i = 0; i < global.memory.size(); ++i) {
      EXPECT_TRUE(at::equal(after.memory[i].value, global.memory[i].value)) << name;
    }
    for (size_t i = 0; i < TwoLayers().size(); ++i) {
      EXPECT_LE(Relative(Product(after.adapter, i), Product(global.adapter, i)), 1e-6) << name;
    }
  }
}

}  // namespace
}  // namespace weft
