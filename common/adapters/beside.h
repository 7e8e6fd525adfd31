#pragma once
// Adapters applied together as one. Stateless.

#include <optional>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

/// The factors of both side by side, site by site, in a's order; sites that only b has follow.
[[nodiscard]] LowRankAdapter SideBySide(const LowRankAdapter& a, const LowRankAdapter& b);

/// An adapter and what its run took out of the base model as one LoRA adapter of scaling 1, for
/// everyone who has the base as it is; the adapter itself where nothing was taken.
[[nodiscard]] Result<AdapterState> WithBaseChange(const AdapterState& adapter,
                                                  const std::optional<AdapterState>& change);

}  // namespace weft
