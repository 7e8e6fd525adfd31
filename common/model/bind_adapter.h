#pragma once
// From an adapter's state to what the forward pass takes. Stateless.

#include <vector>

#include "common/adapters/adapter.h"
#include "common/model/model.h"

namespace weft {

/// One entry per site of the model; differentiable in the state's tensors. `prepared` as
/// Adapter::EffectiveAll takes it. `dropout` of the spec is passed on (it acts while training
/// only). kInvalidArgument names a site the model does not have, or whose shape differs.
[[nodiscard]] Result<std::vector<Factors>> FactorsFor(const Model& model, const AdapterState& state,
                                                      const Prepared* prepared = nullptr);

/// The same for a frozen adapter in lowered form.
[[nodiscard]] Result<std::vector<Factors>> FactorsFor(const Model& model,
                                                      const LowRankAdapter& adapter);

}  // namespace weft
