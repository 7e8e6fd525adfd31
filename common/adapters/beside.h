#pragma once
// Adapters applied together as one. Stateless.

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

/// The factors of both side by side, site by site, in a's order; sites that only b has follow.
[[nodiscard]] LowRankAdapter SideBySide(const LowRankAdapter& a, const LowRankAdapter& b);

}  // namespace weft
