#pragma once
// SingularForm: a low-rank update as orthonormal factors and true singular values, without forming
// it. Stateless; float64, on the factors' device.
//
// Shape legend: R rank of the factors, I in, O out, Q = min(R, O, I).

#include "common/adapters/adapter_state.h"

namespace weft {

/// B·A = U·diag(S)·Vᵀ: orthonormal columns in U [O×Q] and V [I×Q] (those of a zero singular value
/// too), S [Q] descending. The entry of largest magnitude of each column of U is positive.
struct SingularForm {
  at::Tensor U_OQ;
  at::Tensor S_Q;
  at::Tensor V_IQ;

  [[nodiscard]] int64_t rank() const { return S_Q.size(0); }
  /// The leading `rank` triplets (all, where there are fewer): the nearest update of that rank
  /// (Eckart and Young 1936).
  [[nodiscard]] SingularForm Leading(int64_t rank) const;
  /// A = √S·Vᵀ, B = U·√S: factors of equal weight.
  [[nodiscard]] LowRank Balanced() const;
};

/// Gives each pair of singular vectors the one of its two signs that makes the entry of largest
/// magnitude of the left one positive, so that equal updates have equal vectors.
void FixSigns(at::Tensor& U_OQ, at::Tensor& V_IQ);

/// Thin QR of both factors, then the SVD of the small core R_B·R_Aᵀ.
[[nodiscard]] SingularForm SingularFormOf(const LowRank& factors);

}  // namespace weft
