#pragma once
// The log marginal likelihood of a Laplace posterior (MacKay 1992), log p(D) ≈ LL −
// ½(log det(H + Λ) − log det Λ + θᵀΛθ), and the prior precision that maximises it: no validation
// data and no further round are needed, the eigenvalues, LL and ‖θ‖² suffice.

#include <span>
#include <vector>

#include "common/laplace/posterior.h"

namespace weft {

struct Evidence {
  double log_marginal = 0;
  double log_det_ratio = 0;      // Σ over blocks of Σ_kl log(1 + g_k a_l / λ)
  double scatter = 0;            // Σ over blocks of λ ‖W‖²
  std::vector<double> gradient;  // of log_marginal in log λ of each block; their sum for a shared λ
  std::vector<double> bend;      // its second derivative, negative
};

/// One precision λ > 0 a block, or one for all. Where factors are roots this is the ratio form
/// log det(I + λ⁻¹ BᵀB ⊗ LᵀL), since both share their non-zero eigenvalues.
[[nodiscard]] Result<Evidence> LogEvidence(const LaplacePosterior& posterior,
                                           std::span<const double> precisions);

enum class PriorSharing {
  kOne,        // one λ for all matrices
  kPerMatrix,  // one each
};

/// Bounds of λ: where a matrix's ‖W‖² is zero the evidence grows for ever with λ, where its
/// curvature is zero it grows towards λ = 0.
inline constexpr double kLeastPrecision = 1e-8;
inline constexpr double kLargestPrecision = 1e12;

struct PriorFit {
  std::vector<double> precisions;  // one a block
  double log_marginal = 0;
  int steps = 0;  // Newton steps, of the block that took most
};

/// The λ that maximise the evidence. In log λ it is strictly concave (each term's second derivative
/// is −½ hλ/(h + λ)² − ½ λ‖W‖²), so Newton's method kept inside a shrinking bracket ends at the
/// only maximum, to rounding, or at a bound.
[[nodiscard]] Result<PriorFit> FitPrior(const LaplacePosterior& posterior, PriorSharing sharing);

/// What the official code does instead: Adam (Kingma and Ba 2015; β 0.9 and 0.999, ε 1e-8) on log
/// λ.
struct AdamSettings {
  double learning_rate = 0.1;
  int steps = 100;
  double start = 1;  // λ
};
[[nodiscard]] Result<PriorFit> FitPriorByAdam(const LaplacePosterior& posterior,
                                              PriorSharing sharing, const AdamSettings& settings);

}  // namespace weft
