#pragma once
// Predictions of the linearised model under a Laplace posterior (Immer et al. 2021): logits are
// normal, N(f(x; θ), J Σ Jᵀ), and class probabilities are means of softmax under it.
//
// Shape legend: N examples, C classes, S draws, O out, I in.

#include <cstdint>
#include <span>

#include "common/laplace/posterior.h"

namespace weft {

/// J Σ Jᵀ [N×C×C], added up over the blocks in their eigenbases: with J̃ = U_Gᵀ J U_A,
///   Σ_kl J̃_kl J̃_klᵀ / (g_k a_l + λ) + (J Jᵀ − J̃ J̃ᵀ) / λ,
/// the second term on what the roots leave out. `jacobians` holds ∂logits/∂W [N×C×O×I] of each
/// block in order; `precisions` is one λ a block, or one for all. kInvalidArgument naming the block
/// where shapes or counts differ.
[[nodiscard]] Result<at::Tensor> LogitCovariance(const LaplacePosterior& posterior,
                                                 std::span<const double> precisions,
                                                 std::span<const at::Tensor> jacobians_NCOI);

struct MonteCarloSettings {
  int64_t samples = 10000;  // the standard error of a probability is then at most 0.005
  uint64_t seed = 0;
  uint64_t first_example = 0;  // number of the first row: draws depend on seed and number alone
  double jitter = 1e-6;        // added to the covariances' diagonals
};

/// The mean of softmax(f + chol(Σ + jitter·I) ε) over draws ε: probabilities [N×C]. kInternal
/// naming the row whose covariance has no Cholesky factor.
[[nodiscard]] Result<at::Tensor> MonteCarloProbabilities(const at::Tensor& mean_NC,
                                                         const at::Tensor& covariance_NCC,
                                                         const MonteCarloSettings& settings);
/// The same with given standard normal draws [S×N×C].
[[nodiscard]] Result<at::Tensor> MonteCarloProbabilities(const at::Tensor& mean_NC,
                                                         const at::Tensor& covariance_NCC,
                                                         const at::Tensor& draws_SNC,
                                                         double jitter);

/// softmax(f / √(1 + π/8·Σ_cc)): the probit approximation, class by class (MacKay 1992).
[[nodiscard]] at::Tensor ProbitProbabilities(const at::Tensor& mean_NC,
                                             const at::Tensor& covariance_NCC);

/// The Dirichlet that the Laplace bridge puts in place of the softmax of a normal (Hobbhahn et al.
/// 2022), α_c = (1 − 2/C + e^{f_c}/C² Σ_d e^{−f_d}) / Σ_cc, after conditioning the normal on
/// logits that add up to zero: α [N×C]; probabilities are its mean α/Σα.
[[nodiscard]] at::Tensor BridgeDirichlet(const at::Tensor& mean_NC,
                                         const at::Tensor& covariance_NCC);
[[nodiscard]] at::Tensor BridgeProbabilities(const at::Tensor& mean_NC,
                                             const at::Tensor& covariance_NCC);

}  // namespace weft
