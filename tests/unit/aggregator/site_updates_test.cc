// A site's updates whole in memory and a few at a time are the same updates, and a rule that takes
// them as they pass makes the same of both.

#include "aggregator/strategies/site_updates.h"

#include <gtest/gtest.h>

#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::MaxAbs;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::PlanFor;
using testing::ProductStrategies;
using testing::Relative;
using testing::TrainedClient;
using testing::TwoLayers;

constexpr int64_t kNoStack = 1;  // byte: no stack is small enough to be held whole
constexpr size_t kClients = 9;

struct World {
  StrategySettings settings;
  GlobalState global;
  std::unique_ptr<MemoryUpdates> updates;
};

World WorldOf(const Strategy& strategy) {
  World world;
  world.settings.name = std::string(strategy.name());
  world.global = strategy.Init(testing::LoraSpec(4, 8), TwoLayers(), 3).value();
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < kClients; ++k) {
    const int64_t rank = strategy.traits().mixed_ranks ? 1 + static_cast<int64_t>(k % 4) : 4;
    const ClientPlan plan = PlanFor(strategy, world.settings, "c" + std::to_string(k), rank, 8, 1);
    clients.push_back(TrainedClient(strategy, world.global, plan));
    clients.back().weight = 1.0 + static_cast<double>(k);
  }
  world.updates = std::make_unique<MemoryUpdates>(std::move(clients));
  return world;
}

Result<SiteMerge> MergeOf(const Strategy& strategy, const World& world, const UpdateSource& updates,
                          size_t site) {
  const MergeInput input{world.settings, world.global, updates, 1};
  WEFT_TRY_ASSIGN(const RoundSurvey survey, strategy.Survey(input));
  return strategy.MergeSite(input, survey, site);
}

TEST(SiteUpdatesTest, ARuleThatTakesThemAsTheyPassMakesTheSameOfAFewAtATime) {
  size_t rules = 0;
  for (const Strategy* strategy : ProductStrategies()) {
    if (strategy->traits().needs_each_update) continue;
    ++rules;
    const World world = WorldOf(*strategy);
    for (size_t site = 0; site < TwoLayers().size(); ++site) {
      StackMemory whole_memory, part_memory;
      const auto whole =
          UpdatesOfSite(*world.updates, TwoLayers()[site], site, whole_memory, true).value();
      const auto parts =
          UpdatesOfSite(*world.updates, TwoLayers()[site], site, part_memory, true, kNoStack)
              .value();
      const SiteMerge wanted = MergeOf(*strategy, world, *whole, site).value();
      const SiteMerge got = MergeOf(*strategy, world, *parts, site).value();
      // Float64 sums in another order: far below what float32 keeps.
      EXPECT_LT(Relative(testing::Product(got.factors), testing::Product(wanted.factors)), 1e-12)
          << strategy->name() << " site " << site;
      EXPECT_LT(Relative(parts->Mean(site)->Matrix(), whole->Mean(site)->Matrix()), 1e-13);
    }
  }
  EXPECT_GE(rules, 3U) << "fedavg, rbla and those with a frozen side";
}

TEST(SiteUpdatesTest, TheMeanOfFactorsHasTheSameBitsEitherWay) {
  const Strategy& fedavg = **FindStrategy("fedavg");
  const World world = WorldOf(fedavg);
  StackMemory whole_memory, part_memory;
  const auto whole = UpdatesOfSite(*world.updates, TwoLayers()[0], 0, whole_memory, true).value();
  const auto parts =
      UpdatesOfSite(*world.updates, TwoLayers()[0], 0, part_memory, true, kNoStack).value();
  const LowRank wanted = MergeOf(fedavg, world, *whole, 0)->factors;
  const LowRank got = MergeOf(fedavg, world, *parts, 0)->factors;
  EXPECT_EQ(MaxAbs(got.A_RI - wanted.A_RI), 0);
  EXPECT_EQ(MaxAbs(got.B_OR - wanted.B_OR), 0);
}

TEST(SiteUpdatesTest, StacksComeInOrderAndNoneHasMoreThanItsBytesUnlessOneClientHas) {
  const World world = WorldOf(**FindStrategy("fedavg"));
  const LinearSite& layer = TwoLayers()[0];
  const int64_t bytes_a_rank = (layer.in + layer.out) * 8;
  StackMemory memory;
  const auto parts =
      UpdatesOfSite(*world.updates, layer, 0, memory, true, 2 * 5 * bytes_a_rank).value();
  size_t next = 0;
  size_t stacks = 0;
  const Status status = parts->EachStack(0, [&](size_t first, const SiteStack& stack) {
    EXPECT_EQ(first, next);
    EXPECT_LE(stack.begins.back(), 5);
    for (size_t i = 0; i < stack.size(); ++i) {
      const LowRank own = *world.updates->Factors(first + i, 0);
      EXPECT_EQ(MaxAbs(stack.Of(i).A_RI - own.A_RI), 0);
    }
    next += stack.size();
    ++stacks;
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(next, kClients);
  EXPECT_GE(stacks, 4U);
  EXPECT_LE(memory.A.numel(), 2 * 5 * layer.in) << "room is guessed from ranks, which are mixed";
}

TEST(SiteUpdatesTest, WhoNeedsEachOfThemGetsOneStackHoweverLarge) {
  const World world = WorldOf(**FindStrategy("fedavg"));
  StackMemory memory;
  const auto held =
      UpdatesOfSite(*world.updates, TwoLayers()[0], 0, memory, false, kNoStack).value();
  size_t stacks = 0;
  const Status status = held->EachStack(0, [&](size_t, const SiteStack& stack) {
    ++stacks;
    EXPECT_EQ(stack.size(), kClients);
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(stacks, 1U);
}

}  // namespace
}  // namespace weft
