#pragma once
// Rules under which one factor of every pair is the same for all clients and stays as it was sent:
// the other's mean is then the exact mean of the products, linear in the updates, and half the
// bytes. Clients of lower rank train leading slots of the same pair.
//
// Shape legend: O out, I in, G trained slots.

#include "aggregator/strategies/factor_strategy.h"

namespace weft {

class FrozenSideStrategy : public FactorStrategy {
 public:
  StrategyTraits traits() const override {
    return {.needs_each_update = false,
            .mixed_ranks = true,
            .exact = true,
            .any_weights = true,
            .frozen_side = true,
            .keeps_basis = true};
  }
  std::span<const std::string_view> keys() const override { return {}; }
  AdapterSpec ForRound(const StrategySettings& settings, int64_t global_rank,
                       const AdapterSpec& spec, uint64_t seed, uint64_t round) const override;
  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey& survey,
                              size_t site) const override;

 protected:
  /// "A" or "B": the factor that trains in that round.
  [[nodiscard]] virtual std::string TrainedIn(uint64_t round) const = 0;
};

}  // namespace weft
