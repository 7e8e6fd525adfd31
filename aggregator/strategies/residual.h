#pragma once
// What factors lack to the exact mean, and rules that keep it frozen beside them.

#include "aggregator/strategies/slots.h"

namespace weft {

/// Σ p_k (pad(s_k B_k) − B̄)(pad(A_k) − Ā) of weights p_k that add up to 1: Σ p_k s_k B_k A_k − B̄Ā.
[[nodiscard]] Result<LowRankSum> FactorResidual(const MergeInput& input, size_t site,
                                                const LowRank& mean);

/// The part of the trained slots that nobody was sent.
[[nodiscard]] LowRank UntrainedTail(const GlobalState& global, size_t site, const SentMean& sent);

/// Publishes the trained slots and the frozen stack grown by the residual; the target is the exact
/// mean and what nobody was sent.
[[nodiscard]] Result<SiteMerge> WithFrozenStack(const MergeInput& input, size_t site,
                                                const LowRank& trained, const LowRankSum& residual,
                                                const SentMean& sent);

}  // namespace weft
