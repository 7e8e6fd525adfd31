#pragma once
// OwnCoordinates: a rule that merges updates in the coordinates of their method (Adapter::Merge)
// and publishes in them, so that a download is as small as an upload and clients go on from where
// the merge left them. One method and one rank for all clients.

#include "aggregator/strategies/strategy.h"

namespace weft {

class OwnCoordinates : public Strategy {
 public:
  StrategyTraits traits() const override { return {.own_coordinates = true}; }
  std::span<const std::string_view> keys() const override { return {}; }

  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override;
  Result<AdapterBundle> Cut(const GlobalState& global, const ClientPlan& client) const override;
  Result<std::optional<LowRank>> Sent(const GlobalState& global, size_t site,
                                      const ClientPlan& client) const override;
  Result<Adapter::Merged> MergeWhole(const MergeInput& input) const override;
  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey& survey,
                              size_t site) const override;
};

}  // namespace weft
