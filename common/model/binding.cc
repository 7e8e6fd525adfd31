#include "common/model/binding.h"

#include <map>

#include "common/adapters/adapter.h"
#include "common/base/str.h"

namespace weft {

Result<std::vector<size_t>> IndexSites(const Model& model, const AdapterState& state) {
  if (!state.dense.empty()) {
    return FailedPrecondition(Str("[adapter] it replaces the whole module of ", state.dense[0].name,
                                  " (modules_to_save), which is read and written but not applied; "
                                  "merge it into the base model with PEFT"));
  }
  std::map<std::string_view, size_t> by_path;
  for (size_t i = 0; i < model.sites().size(); ++i) by_path[model.sites()[i].path] = i;
  std::vector<size_t> indices;
  for (const SiteState& site : state.sites) {
    const auto found = by_path.find(site.site.path);
    if (found == by_path.end()) {
      return InvalidArgument(Str("[adapter] the base model has no linear layer ", site.site.path));
    }
    const LinearSite& wanted = model.sites()[found->second];
    if (wanted != site.site) {
      return InvalidArgument(Str("[adapter] ", site.site.path, " is ", site.site.out, "×",
                                 site.site.in, ", the base model's is ", wanted.out, "×",
                                 wanted.in));
    }
    indices.push_back(found->second);
  }
  return indices;
}

Result<AdapterBinding> BindFrozen(const Model& model, std::span<const AdapterState> adapters) {
  AdapterBinding binding;
  for (const AdapterState& state : adapters) {
    WEFT_TRY_ASSIGN(const std::vector<size_t> indices, IndexSites(model, state));
    WEFT_TRY_ASSIGN(const LowRankAdapter lowered, Lower(state));
    std::vector<Factors> factors(model.sites().size());
    for (size_t i = 0; i < lowered.size(); ++i) {
      factors[indices[i]].low_rank = {
          lowered[i].factors.A_RI.to(model.device(), model.dtype()).contiguous(),
          lowered[i].factors.B_OR.to(model.device(), model.dtype()).contiguous()};
    }
    binding.push_back(std::move(factors));
  }
  return binding;
}

}  // namespace weft
