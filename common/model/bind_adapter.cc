#include "common/model/bind_adapter.h"

#include <unordered_map>

namespace weft {
namespace {

using SiteIndex = std::unordered_map<std::string, size_t>;

SiteIndex IndexOf(const Model& model) {
  SiteIndex index;
  for (size_t i = 0; i < model.sites().size(); ++i) index.emplace(model.sites()[i].path, i);
  return index;
}

Result<size_t> PlaceOf(const Model& model, const SiteIndex& index, const LinearSite& site) {
  const auto found = index.find(site.path);
  if (found == index.end()) {
    return InvalidArgument(Str("[adapter] site ", site.path, ": the model (",
                               model.config().architecture, ") has no such linear layer"));
  }
  const LinearSite& own = model.sites()[found->second];
  if (own.in != site.in || own.out != site.out) {
    return InvalidArgument(Str("[adapter] site ", site.path, ": the adapter is for ", site.in,
                               " → ", site.out, " features, the model has ", own.in, " → ", own.out,
                               "; it was trained on another model"));
  }
  return found->second;
}

LowRank OnDevice(const LowRank& factors, at::Device device) {
  return {factors.A_RI.to(device), factors.B_OR.to(device)};
}

}  // namespace

Result<std::vector<Factors>> FactorsFor(const Model& model, const AdapterState& state,
                                        const Prepared* prepared) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(state.spec.method));
  const SiteIndex index = IndexOf(model);
  std::vector<size_t> places;
  for (const SiteState& site : state.sites) {
    WEFT_TRY_ASSIGN(const size_t at, PlaceOf(model, index, site.site));
    places.push_back(at);
  }
  const std::vector<LowRank> low_rank = method->EffectiveAll(state, prepared);
  std::vector<Factors> factors(model.sites().size());
  for (size_t i = 0; i < places.size(); ++i) {
    factors[places[i]] = {OnDevice(low_rank[i], model.device()), state.spec.dropout};
  }
  return factors;
}

Result<std::vector<Factors>> FactorsFor(const Model& model, const LowRankAdapter& adapter) {
  const SiteIndex index = IndexOf(model);
  std::vector<Factors> factors(model.sites().size());
  for (const LowRankSite& site : adapter) {
    WEFT_TRY_ASSIGN(const size_t at, PlaceOf(model, index, site.site));
    factors[at].low_rank = OnDevice(site.factors, model.device());
  }
  return factors;
}

}  // namespace weft
