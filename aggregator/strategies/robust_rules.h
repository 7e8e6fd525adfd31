#pragma once
// Robust rules (spec/aggregation.md 6): what keeps one client from bending the merge. Some choose
// how much each client counts, from the Gram matrix of what the clients changed, D_k = ΔW_k −
// sent_k, over all sites together; some look at single elements, site by site. Stateless.
//
// Shape legend: K clients, O out, I in.

#include <string>
#include <vector>

#include "aggregator/strategies/strategy.h"
#include "common/runtime/executor.h"

namespace weft {

/// kInvalidArgument where the strategy cannot follow the robust rule or the server optimiser.
[[nodiscard]] Status CheckSteps(const Strategy& strategy, const StrategySettings& settings);

/// Did a robust rule leave anyone?
[[nodiscard]] bool AnyoneCounts(const UpdateSource& updates);

/// Does the rule choose weights of clients (or a clip change them)? Else it looks at elements.
[[nodiscard]] bool ChoosesWeights(const RobustSettings& settings);
[[nodiscard]] bool LooksAtElements(const RobustSettings& settings);

/// ⟨D_i, D_j⟩ over all sites, float64 [K×K] on the CPU, without forming any ΔW. The sites in
/// parallel, summed in their order.
[[nodiscard]] Result<at::Tensor> ChangeGram(const Strategy& strategy, const MergeInput& input,
                                            JobControl& control);

/// How much each client counts, and why that is not its share.
struct ClientChoice {
  // c_k: the merge moves by Σ c_k D_k. For a rule that looks at elements: the share of D_k that it
  // sees, 0 to 1.
  std::vector<double> coefficients;
  std::vector<std::string> reasons;  // of each client; empty: nothing to say
  int64_t byzantine = 0;             // the f that so many updates could bear
  std::vector<std::string> notes;    // about the round: the rule could not be kept as it was asked
};

/// The rule on a Gram matrix [K×K] of clients with weights p_k. `trusted` is an index, or K.
[[nodiscard]] ClientChoice ChooseClients(const RobustSettings& settings, const at::Tensor& gram_KK,
                                         const std::vector<double>& weights, size_t trusted);

/// Krum's score of every client (Blanchard et al. 2017): the sum of its n − f − 2 smallest squared
/// distances to others, at least one.
[[nodiscard]] std::vector<double> KrumScores(const at::Tensor& gram_KK, int64_t byzantine);

/// Clients picked one after the other by Krum on those that are left (Bulyan's first stage).
[[nodiscard]] std::vector<size_t> RepeatedKrum(const at::Tensor& gram_KK, int64_t byzantine,
                                               int64_t picks);

/// c of argmin Σ p_k ‖z − D_k‖, z = Σ c_k D_k (Pillutla et al. 2022), smoothed Weiszfeld steps from
/// the weighted mean until nothing moves any more, or `steps` of them. A distance counts as at least
/// `nearest`; 0: a millionth of the largest norm, so that the scale of the updates changes nothing.
[[nodiscard]] std::vector<double> GeometricMedian(const at::Tensor& gram_KK,
                                                  const std::vector<double>& weights,
                                                  int64_t steps, double nearest = 0);

/// Element-wise over a first dimension of clients, unweighted: the median (of an even number the
/// mean of the middle two), or the mean without the ⌊trim·K⌋ largest and smallest.
[[nodiscard]] at::Tensor ElementMedian(const at::Tensor& values_K);
[[nodiscard]] at::Tensor TrimmedMean(const at::Tensor& values_K, double trim);
/// The mean of the `nearest` values next to the median (Bulyan's second stage).
[[nodiscard]] at::Tensor MeanAroundMedian(const at::Tensor& values_K, int64_t nearest);

/// The rule that looks at elements on values [K×…], of clients it has chosen before.
[[nodiscard]] at::Tensor CombineElements(const RobustSettings& settings,
                                         const at::Tensor& values_K);

/// What the updates of a site change together by that rule [O×I], formed block of rows by block;
/// `fresh`: clients started from nothing. A client's weight is the share of its change that is
/// seen.
[[nodiscard]] Result<at::Tensor> ElementwiseChange(const MergeInput& input, size_t site,
                                                   bool fresh);

}  // namespace weft
