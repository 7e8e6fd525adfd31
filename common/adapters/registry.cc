// The one table of adapter methods; a new method is one file and one line here.

#include <array>

#include "common/adapters/adapter.h"
#include "common/adapters/change.h"
#include "common/adapters/kasa.h"
#include "common/adapters/lora.h"
#include "common/adapters/lora_xs.h"
#include "common/adapters/msplora.h"
#include "common/adapters/nola.h"
#include "common/adapters/roselora.h"
#include "common/base/str.h"

namespace weft {

std::vector<NamedTensor> StepRule::Save() const { return {}; }

Status StepRule::Restore(const std::vector<NamedTensor>&) { return OkStatus(); }

AdapterSpec Adapter::ForRound(const AdapterSpec& spec, uint64_t, uint64_t) const { return spec; }

std::shared_ptr<const Prepared> Adapter::Prepare(const AdapterState&, at::Device) const {
  return nullptr;
}

std::vector<LowRank> Adapter::EffectiveAll(const AdapterState& state, const Prepared*) const {
  std::vector<LowRank> factors;
  factors.reserve(state.sites.size());
  for (size_t i = 0; i < state.sites.size(); ++i) factors.push_back(Effective(state, i));
  return factors;
}

int64_t Adapter::FactorRank(const AdapterSpec& spec, const LinearSite& site) const {
  return SiteRank(spec, site);
}

Result<AdapterState> Adapter::Project(const AdapterSpec&, const LowRankAdapter&) const {
  return FailedPrecondition(
      Str("[adapter] method ", name(), " has no parameters for arbitrary factors"));
}

Status Adapter::CheckMerges(const AdapterSpec&) const {
  return InvalidArgument(Str("[adapter] method ", name(),
                             " has no merge in its own coordinates; use exact-svd or flora"));
}

Result<Adapter::Merged> Adapter::Merge(std::span<const AdapterUpdate>, const AdapterSpec& spec,
                                       uint64_t) const {
  WEFT_TRY(CheckMerges(spec));
  return Internal(Str("[adapter] method ", name(), " does not merge"));
}

std::optional<AdapterSpec> Adapter::KeptSpec(const AdapterSpec&) const { return std::nullopt; }

Result<AdapterState> Adapter::Join(const Parts&) const {
  return InvalidArgument(Str("[adapter] method ", name(), " keeps nothing at a site"));
}

Result<Adapter::Parts> Adapter::Split(const AdapterState&, const AdapterSpec&) const {
  return InvalidArgument(Str("[adapter] method ", name(), " keeps nothing at a site"));
}

at::Tensor Adapter::Penalty(const AdapterState&) const { return {}; }

Result<std::optional<LowRankAdapter>> Adapter::BaseChange(const AdapterSpec&,
                                                          std::span<const LinearSite>,
                                                          const WeightOf&) const {
  return std::optional<LowRankAdapter>();
}

std::unique_ptr<StepRule> Adapter::NewStepRule(const AdapterState&, const StepSchedule&) const {
  return nullptr;
}

std::span<const Adapter* const> AdapterRegistry() {
  static const std::array<const Adapter*, 7> kMethods = {
      LoraAdapter(),    NolaAdapter(), RoseLoraAdapter(),
      MspLoraAdapter(), KasaAdapter(), LoraXsAdapter(),
      ChangeAdapter(),
  };
  return kMethods;
}

Result<const Adapter*> FindAdapter(std::string_view name) {
  std::string known;
  for (const Adapter* method : AdapterRegistry()) {
    if (method->name() == name) return method;
    known += (known.empty() ? "" : ", ") + std::string(method->name());
  }
  return NotFound(Str("[adapter] no method is called \"", name, "\"; known: ", known));
}

Result<LowRankAdapter> Lower(const AdapterState& state) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(state.spec.method));
  const at::NoGradGuard no_grad;
  LowRankAdapter lowered;
  lowered.reserve(state.sites.size());
  std::vector<LowRank> factors = method->EffectiveAll(state, nullptr);
  for (size_t i = 0; i < state.sites.size(); ++i) {
    lowered.push_back(
        {state.sites[i].site,
         {factors[i].A_RI.detach().to(at::kFloat), factors[i].B_OR.detach().to(at::kFloat)}});
  }
  return lowered;
}

}  // namespace weft
