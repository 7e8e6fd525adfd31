#pragma once
// Adapter states → the AdapterBinding of a forward pass. Stateless.

#include <span>

#include "common/model/model.h"

namespace weft {

/// For each site of the adapter its index in Model::sites(). kInvalidArgument naming the layer that
/// the model does not have or that has another shape there; kFailedPrecondition for whole saved
/// modules, which the forward pass does not replace.
[[nodiscard]] Result<std::vector<size_t>> IndexSites(const Model& model, const AdapterState& state);

/// Adapters that do not train: lowered, on the model's device, in its element type, no dropout.
[[nodiscard]] Result<AdapterBinding> BindFrozen(const Model& model,
                                                std::span<const AdapterState> adapters);

}  // namespace weft
