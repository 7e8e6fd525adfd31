#pragma once
// FactorStrategy: a rule that looks at factors slot by slot in some way (factor_mean.h), so that
// all clients must be LoRA's.

#include "aggregator/strategies/factor_mean.h"
#include "aggregator/strategies/slot_strategy.h"

namespace weft {

class FactorStrategy : public SlotStrategy {
 public:
  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override {
    WEFT_TRY(CheckFactors(name(), spec));
    return InitSlots(name(), spec, sites, seed);
  }
};

}  // namespace weft
