#pragma once
// Merging KaSA adapters in their own form: B·diag(σ)·A is closed under stacking, with the weights
// in σ. Averaging A, B and σ each would be trilinear and wrong. Stateless; float64.
//
// Shape legend: R rank, I in, O out.

#include <span>

#include "common/adapters/adapter_state.h"

namespace weft {

/// ΔW = s·B·diag(σ)·A of one site, s from outside.
struct KasaFactors {
  at::Tensor A_RI;
  at::Tensor B_OR;
  at::Tensor sigma_R;
};

/// One client's factors of a site, its scaling s and its weight p.
struct KasaUpdate {
  KasaFactors factors;
  double scaling = 1;
  double weight = 1;
};

/// Σ_c p_c·s_c·B_c·diag(σ_c)·A_c = s·B·diag(σ)·A with A and B side by side and σ = [p_c·s_c/s·σ_c],
/// in client order: exact for any ranks and scalings. Where all clients have the same A and the
/// same B, only σ is averaged and the rank does not grow. At least one update (checked).
[[nodiscard]] KasaFactors StackKasa(std::span<const KasaUpdate> updates, double scaling = 1);

/// The same update with orthonormal rows in A, orthonormal columns in B and its true singular
/// values in σ, descending; the best of that rank where `rank` is less than min(R, O, I). A start
/// at which both regularisers of A and B are 0.
[[nodiscard]] KasaFactors OrthonormalKasa(const KasaFactors& factors, int64_t rank);

/// Without a loss of rank.
[[nodiscard]] KasaFactors OrthonormalKasa(const KasaFactors& factors);

/// B·diag(σ)·A as plain factors at scale s.
[[nodiscard]] LowRank LowerKasa(const KasaFactors& factors, double scaling = 1);

/// How many of the smallest components a client has taken out of the base, and its weight p.
struct KasaTruncation {
  int64_t removed = 0;
  double weight = 1;
};

/// Σ_c p_c·W_c of clients that truncated the base differently: U·diag(σ_j·(1 − w_j))·Vᵀ, w_j the
/// weight of those who removed component j. [O×I]. Weights add up to 1.
[[nodiscard]] at::Tensor MeanTruncatedBase(const at::Tensor& W_OI,
                                           std::span<const KasaTruncation> clients);

}  // namespace weft
