#pragma once
// SlotStrategy: a rule that hands out slots of one global adapter (slots.h). What is left to it is
// its merge.

#include "aggregator/strategies/slots.h"

namespace weft {

class SlotStrategy : public Strategy {
 public:
  AdapterSpec ForRound(const StrategySettings& settings, int64_t global_rank,
                       const AdapterSpec& spec, uint64_t seed, uint64_t round) const override {
    const SlotRule rule{.draws = DrawsSlots(settings),
                        .tail_on_client = settings.tail_on_client || tail_on_client()};
    return SlotsForRound(rule, global_rank, spec, seed, round);
  }
  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override {
    return InitSlots(name(), spec, sites, seed);
  }
  Result<AdapterBundle> Cut(const GlobalState& global, const ClientPlan& client) const override {
    return CutSlots(global, client);
  }
  Result<std::optional<LowRank>> Sent(const GlobalState& global, size_t site,
                                      const ClientPlan& client) const override {
    return SentSlots(global, site, client);
  }

 protected:
  /// Are the slots of a low-rank client drawn for it? Never, unless overridden.
  [[nodiscard]] virtual bool DrawsSlots(const StrategySettings&) const { return false; }
  /// Do slots that a client does not train always lie frozen beside its own?
  [[nodiscard]] virtual bool tail_on_client() const { return false; }
};

}  // namespace weft
