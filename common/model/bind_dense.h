#pragma once
// From an adapter's dense part, and from the whole adapter, to what the forward pass takes.
// Stateless.

#include <span>
#include <vector>

#include "common/adapters/adapter.h"
#include "common/base/result.h"
#include "common/model/model.h"

namespace weft {

/// The tensors on the model's device; the same handles where they are there already, so gradients
/// reach them. kInvalidArgument names a tensor that is none of the model's classification head's,
/// or whose shape fits none.
[[nodiscard]] Result<std::vector<NamedTensor>> DenseFor(const Model& model,
                                                        std::span<const NamedTensor> dense);

/// The adapter's factors (see FactorsFor, which takes the same) and its dense part.
[[nodiscard]] Result<AppliedAdapter> Apply(const Model& model, const AdapterState& state,
                                           const Prepared* prepared = nullptr);

/// Can these adapters give logits on this model? kFailedPrecondition says what the head lacks.
[[nodiscard]] Status CheckHead(const Model& model, const AdapterBinding& adapters);

}  // namespace weft
