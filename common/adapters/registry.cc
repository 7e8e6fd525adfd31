// The one table of adapter methods; a new method is one file and one line here.

#include <array>

#include "common/adapters/adapter.h"
#include "common/adapters/lora.h"
#include "common/base/str.h"

namespace weft {

void Adapter::AfterStep(AdapterState&, int64_t) const {}

std::span<const Adapter* const> AdapterRegistry() {
  static const std::array<const Adapter*, 1> kMethods = {
      LoraAdapter(),
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
  for (size_t i = 0; i < state.sites.size(); ++i) {
    LowRank factors = method->Effective(state, i);
    factors.A_RI = factors.A_RI.detach().to(at::kFloat);
    factors.B_OR = factors.B_OR.detach().to(at::kFloat);
    lowered.push_back({state.sites[i].site, std::move(factors)});
  }
  return lowered;
}

}  // namespace weft
