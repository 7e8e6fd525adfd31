#pragma once
// Random rounds for properties of the merge: a strategy, the global adapter that some rounds have
// left, and what clients of a next round return. Sizes are rapidcheck's to shrink, tensors come
// from one seed.

#include <string>
#include <vector>

#include "aggregator/strategies/round_merge.h"
#include "tests/properties/property.h"
#include "tests/support/strategy_world.h"

namespace weft::testing {

/// ‖got − wanted‖_F / ‖wanted‖_F of what is published in float32.
inline constexpr double kPublished = 1e-5;

struct RoundBounds {
  int64_t clients_min = 1;
  int64_t clients_max = 5;
  int64_t rank_min = 1;
  int64_t size_min = 1;       // of a layer's sides
  int64_t rounds_before = 2;  // at most
};

struct RandomRound {
  const Strategy* strategy = nullptr;
  StrategySettings settings;
  std::vector<LinearSite> sites;
  GlobalState global;
  uint64_t number = 1;
  uint64_t seed = 0;
  std::vector<MemoryClient> clients;  // weights are whole numbers: numbers of examples
};

/// A round of that strategy; ranks are mixed where it can.
[[nodiscard]] RandomRound DrawRound(const StrategySettings& settings,
                                    const RoundBounds& bounds = {});

/// Any strategy that merges products, and that `wanted` of its traits.
[[nodiscard]] StrategySettings DrawStrategy(bool (*wanted)(const StrategyTraits&) = nullptr);

/// Any robust rule that needs no named client, with numbers that go with few clients.
[[nodiscard]] RobustSettings DrawRobust();
/// That rule, or "clip".
[[nodiscard]] RobustSettings RobustNamed(const std::string& rule);

/// MergeRound; throws what fails.
[[nodiscard]] MergedRound Merged(const RandomRound& round, const UpdateSource& updates);
[[nodiscard]] MergedRound Merged(const RandomRound& round,
                                 const std::vector<MemoryClient>& clients);

/// (B, A) → (B·G, G⁻¹·A) with a random G of cond(G) ≤ 100 at every site: the same product.
void ChangeGauge(MemoryClient& client, uint64_t seed);

/// Relative distance of all sites together.
[[nodiscard]] double Distance(const AdapterState& got, const AdapterState& wanted);

}  // namespace weft::testing
