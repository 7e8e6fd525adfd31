#pragma once
// Means of factors: what rules that average A and B by themselves have in common. Ranks are padded
// with zeros; α/r of a client goes into its B unless said otherwise. LoRA adapters only.
//
// Shape legend: O out, I in, G the largest rank.

#include "aggregator/strategies/strategy.h"

namespace weft {

enum class Absorb { kB, kSqrt, kRaw };

/// Ā = Σ w_k pad(A_k) [G×I], B̄ = Σ w_k pad(s_k B_k) [O×G], at least as many slots as the old global
/// adapter trains. Raw: as if all clients had the run's own α/r.
[[nodiscard]] Result<LowRank> MeanOfFactors(const MergeInput& input, size_t site,
                                            const std::vector<double>& weights,
                                            Absorb absorb = Absorb::kB);

/// P_j = Σ of the weights of clients that own slot j, i.e. whose rank is larger than j.
[[nodiscard]] std::vector<double> SlotOwners(const SiteStack& stack,
                                             const std::vector<double>& weights, int64_t slots);
/// Adds those of a stack, one weight for each of its clients, to what others own.
void AddSlotOwners(const SiteStack& stack, std::span<const double> weights,
                   std::vector<double>& owners);

/// kInvalidArgument unless the spec is plain LoRA's: factors of different methods have no mean.
[[nodiscard]] Status CheckFactors(std::string_view strategy, const AdapterSpec& spec);

/// The merge of a rule that publishes the factors it made, whatever they are.
[[nodiscard]] SiteMerge OwnFactors(LowRank factors);

}  // namespace weft
