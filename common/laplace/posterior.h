#pragma once
// The Laplace posterior over an adapter's matrices, N(θ, (H + Λ)⁻¹): H is block-diagonal over the
// matrices, each block a Kronecker product G ⊗ A (row-major vec(W) pairs G with W's rows), Λ one
// prior precision a matrix. Everything is kept in the eigenbases of G and A, where H + Λ is
// diagonal; a block is never formed.
//
// Shape legend: O out, I in, K eigenvalues of G, L eigenvalues of A.

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/laplace/statistics.h"

namespace weft {

/// How the sums become curvature. Where every example has one row, the first two agree.
enum class Normalization {
  /// KFAC-expand (Eschenhagen et al. 2023): T·E[g gᵀ] ⊗ E[a aᵀ], means over the T rows of the
  /// matrix.
  kTokenRows,
  /// As official laplace-lora does: G = Σ g gᵀ over all rows, A = Σ a aᵀ over all rows / examples.
  kLaplaceLora,
  /// As official bayesian_lora does, from gradients of the batch's mean loss: whole factors divided
  /// by the number of batches and their diagonals raised by 1e-8 of themselves + 1e-8, roots as
  /// they
  /// are. The posterior's width then depends on the batch size.
  kBayesianLora,
};

/// "token-rows", "laplace-lora", "bayesian-lora".
[[nodiscard]] std::string_view NormalizationName(Normalization normalization);

/// One matrix W: H = (output.values ⊗ input.values) in the eigenbases, zero outside them.
struct KroneckerBlock {
  std::string name;
  FactorEigen output;
  FactorEigen input;
  double theta_square = 0;  // ‖W‖_F² at the mean

  [[nodiscard]] int64_t out() const { return output.dim(); }
  [[nodiscard]] int64_t in() const { return input.dim(); }
  /// g_k a_l [K×L]: the eigenvalues of H that may not be zero.
  [[nodiscard]] at::Tensor Curvature() const;
};

struct LaplacePosterior {
  std::string adapter_hash;
  double log_likelihood = 0;
  std::vector<KroneckerBlock> blocks;  // in the order of the statistics
};

/// `theta` holds the matrices at which was measured, [O×I] in the order of the statistics.
/// kInvalidArgument where one is missing, of another shape or not finite, or the statistics do not
/// pass CheckStatistics; kInternal where LibTorch finds no decomposition.
[[nodiscard]] Result<LaplacePosterior> MakePosterior(const LaplaceStatistics& statistics,
                                                     std::span<const at::Tensor> theta,
                                                     Normalization normalization);

/// The factors of one matrix as that normalisation scales them: what MakePosterior decomposes.
struct ScaledFactors {
  Gram input;
  Gram output;
};
[[nodiscard]] ScaledFactors Scale(const LaplaceStatistics& statistics,
                                  const MatrixStatistics& matrix, Normalization normalization);

}  // namespace weft
