#pragma once
// The target of rules that follow whatever the updates ask for: the old global adapter G moved by
// D = Σ c_k (ΔW_k − sent_k), as a robust rule would have it and a server optimiser follows it.

#include <functional>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// sum + rest is where a site should go.
struct SiteTarget {
  LowRankSum sum;
  LowRankSum rest;
  bool sum_is_mean = true;               // Σ c_k ΔW_k; else what rule or optimiser put there
  std::vector<NamedTensor> memory = {};  // of the server optimiser
};

/// G + D: sum = Σ c_k ΔW_k and rest = G − Σ c_k sent_k, unless a robust rule or a server optimiser
/// puts another change in place of D; then sum is that change and rest is G.
[[nodiscard]] Result<SiteTarget> TargetOf(const MergeInput& input, size_t site);

/// The same for a rule that publishes the growth beside what it had: D alone, rest is empty.
[[nodiscard]] Result<SiteTarget> GrowthOf(const MergeInput& input, size_t site);

/// The target brought to singular form and cut to the rank that `choose_rank` sees fit for its
/// spectrum.
[[nodiscard]] SiteMerge CutTo(
    const MergeInput& input, size_t site, SiteTarget target,
    const std::function<int64_t(const at::Tensor& spectrum)>& choose_rank);

/// The same cut to what the settings allow: energy, and at most
/// `cap` ranks.
[[nodiscard]] SiteMerge CutToRank(const MergeInput& input, size_t site, SiteTarget target,
                                  int64_t cap);

}  // namespace weft
