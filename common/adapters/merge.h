#pragma once
// W ← W + ΔW: an adapter folded into a model's weights. Stateless.

#include <string>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

struct MergeOptions {
  /// Is the weight of this site's path stored [in×out] (GPT-2's Conv1D)?
  bool stored_transposed = false;
};

/// `weights` (with HF names) where each adapted layer's `<path>.weight` is W + Σ B·A, computed in
/// float32 and rounded once to the weight's own type; every other tensor is passed on as it is.
/// Entries that no product of non-zero factors touches (RoseLoRA's) keep their bits.
/// Nothing is changed in place. kInvalidArgument naming a layer whose weight is missing or of
/// another shape, kFailedPrecondition for a result that is not finite in the weight's type.
[[nodiscard]] Result<std::vector<NamedTensor>> MergeIntoWeights(
    const std::vector<NamedTensor>& weights, const LowRankAdapter& adapter,
    const MergeOptions& options);

}  // namespace weft
