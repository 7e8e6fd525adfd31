#pragma once
// A frozen stack F beside the slots that clients train: what a rule has learned and no slot holds.

#include "aggregator/strategies/strategy.h"

namespace weft {

/// Singular values below this share of the largest are rounding noise of float32 factors.
inline constexpr double kNoise = 1e-12;

/// How many singular values stand above the noise of a sum of that norm.
[[nodiscard]] int64_t NumericalRank(const at::Tensor& spectrum, double norm);

/// Slots of a site beyond those that clients train, float64; none may be there.
[[nodiscard]] LowRank FrozenPart(const GlobalState& global, size_t site);

/// A stack grown by a residual.
struct GrownStack {
  LowRank factors;
  double cut_energy = 0;  // Σσ² that the budget took away
};

/// The most ranks that the site's share of strategy.stack-budget-mb holds, shared out by (in +
/// out).
[[nodiscard]] int64_t RankWithinBudget(const MergeInput& input, size_t site);

/// [F, residual] as it is while it fits into the budget, recompressed where it does not. `scale` is
/// the norm against which singular values are noise.
[[nodiscard]] GrownStack GrowStack(const MergeInput& input, size_t site, const LowRankSum& residual,
                                   double scale);

}  // namespace weft
