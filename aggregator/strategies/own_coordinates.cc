#include "aggregator/strategies/own_coordinates.h"

#include "aggregator/strategies/slots.h"
#include "common/base/str.h"

namespace weft {

Result<GlobalState> OwnCoordinates::Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                                         uint64_t seed) const {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY(method->CheckMerges(spec).Within(Str("[", name(), "]")));
  GlobalState global;
  global.strategy = name();
  global.init = spec;
  WEFT_TRY_ASSIGN(global.adapter, method->Init(method->ForRound(spec, seed, 1), sites, seed));
  return global;
}

// As it is, under the spec of the round.
Result<AdapterBundle> OwnCoordinates::Cut(const GlobalState& global,
                                          const ClientPlan& client) const {
  AdapterBundle bundle;
  bundle.adapter = global.adapter;
  bundle.adapter->spec = client.adapter;
  bundle.adapter->dense.clear();
  return bundle;
}

Result<std::optional<LowRank>> OwnCoordinates::Sent(const GlobalState& global, size_t site,
                                                    const ClientPlan&) const {
  WEFT_TRY_ASSIGN(LowRank factors, LowerSite(global.adapter.spec, global.adapter.sites[site]));
  return std::optional<LowRank>(std::move(factors));
}

Result<Adapter::Merged> OwnCoordinates::MergeWhole(const MergeInput& input) const {
  std::vector<AdapterState> states;
  std::vector<AdapterUpdate> updates;
  states.reserve(input.updates.size());
  for (size_t k = 0; k < input.updates.size(); ++k) {
    WEFT_TRY_ASSIGN(AdapterState state, input.updates.State(k));
    states.push_back(std::move(state));
    updates.push_back({&states.back(), input.updates.weight(k)});
  }
  const AdapterSpec& spec = input.updates.plan(0).adapter;
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  return method->Merge(updates, spec, 0);
}

Result<SiteMerge> OwnCoordinates::MergeSite(const MergeInput& input, const RoundSurvey&,
                                            size_t site) const {
  const AdapterState& state = input.whole->state;
  const LinearSite& layer = state.sites[site].site;
  SiteMerge merge;
  WEFT_TRY_ASSIGN(merge.factors, LowerSite(state.spec, state.sites[site]));
  WEFT_TRY_ASSIGN(merge.sum, input.updates.Mean(site));
  merge.rest = LowRankSum(layer.out, layer.in);
  merge.before_truncation = LowRankSum(layer.out, layer.in);
  merge.before_truncation.Add(input.whole->before_cutting[site].factors);
  return merge;
}

}  // namespace weft
