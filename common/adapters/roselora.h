#pragma once
// RoseLoRA (Wang et al. 2024, arXiv:2406.10777): a LoRA, ΔW = s·B·A, of which training keeps few
// entries in every row of A and in every column of B, so that most of ΔW is exactly zero. The
// entries that stay are those whose smoothed sensitivity |p·∂L/∂p| is largest. Stateless, but for
// the step rule, which remembers those sensitivities.
//
// Options: roselora.keep (τ, share of a row or column that stays in the end; 0.05), roselora.start
// and roselora.end (t_i and t_f of the schedule: whole numbers from 1 are optimiser steps, numbers
// below 1 shares of the run's steps over all rounds; 0.1 and 0.8; the authors' knowledge editor: 3
// and 20 of 25 steps), roselora.beta (of the smoothing; 0.8), roselora.clamp (largest magnitude of
// an entry once pruning has begun; 0: no bound; the editor: 0.003) and roselora.count
// ("order-statistic" as the authors' code counts, "exact": never more than ⌈rate·n⌉).
//
// Shape legend: R rank, I in, O out, N length of a row or column that is pruned.

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* RoseLoraAdapter();

/// The cubic schedule, in optimiser steps of the whole run.
struct RoseSchedule {
  double keep = 0.05;  // τ
  double start = 0;    // t_i
  double end = 0;      // t_f
};

/// Share of entries kept after step t, which counts from 0: 1 before t_i, then
/// τ + (1 − τ)·(1 − (t − t_i)/(t_f − t_i))³, and τ from t_f on.
[[nodiscard]] double RoseKeepRate(const RoseSchedule& schedule, int64_t step);

/// What a spec's options say for a run of that many steps. kInvalidArgument as CheckSpec.
[[nodiscard]] Result<RoseSchedule> RoseScheduleOf(const AdapterSpec& spec, int64_t total_steps);

/// k = ⌊N·(1 − rate)⌋: entries below the k-th smallest score of their row or column are pruned, so
/// N − k + 1 stay. 0: nothing is pruned yet.
[[nodiscard]] int64_t RoseOrder(int64_t length, double rate);

/// I = |p ∘ g|: first-order change of the loss if the entry were zero.
[[nodiscard]] at::Tensor RoseSensitivity(const at::Tensor& value, const at::Tensor& gradient);

/// Ī ← β·Ī + (1 − β)·I in place. Overwrites `score` as well.
void RoseSmooth(at::Tensor& smoothed, at::Tensor& score, double beta);

/// The `order`-th smallest score along `dim`, which stays with extent 1. `order` from 1 (checked).
[[nodiscard]] at::Tensor RoseThreshold(const at::Tensor& smoothed, int64_t order, int64_t dim);

/// What goes: scores strictly below the threshold, so equal ones live or die together.
[[nodiscard]] at::Tensor RosePruned(const at::Tensor& smoothed, const at::Tensor& threshold);

/// What goes where exactly ⌈rate·N⌉ entries along `dim` stay: the largest, of equal ones the first.
[[nodiscard]] at::Tensor RosePrunedExactly(const at::Tensor& smoothed, double rate, int64_t dim);

/// Sensitivity of parameters that several sites hold in common, |Σ_k p_k θ∘g_k|, from the signed
/// products θ∘g_k: what one site with all the data would see. The mean of the |θ∘g_k| is only an
/// upper bound of it. As many weights as products (checked).
[[nodiscard]] at::Tensor RoseCentralSensitivity(std::span<const at::Tensor> signed_products,
                                                std::span<const double> weights);

}  // namespace weft
