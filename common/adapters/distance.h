#pragma once
// ‖ΔW‖_F of adapters from their factors, in float64. Stateless.

#include "common/adapters/adapter_state.h"

namespace weft {

/// ‖ΔW_a − ΔW_b‖_F over all sites, which must be the same in both (checked); `b` may be empty: the
/// norm of a. Needs no matrix larger than the factors.
[[nodiscard]] double DistanceBetween(const LowRankAdapter& a, const LowRankAdapter& b);

/// ‖ΔW‖_F of one site.
[[nodiscard]] double NormOf(const LowRank& factors);

}  // namespace weft
