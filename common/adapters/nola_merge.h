#pragma once
// Exact merging of NOLA adapters in their own coordinates, for clients whose bases are common (one
// seed, rank and scaling; fewer bases are the first of more). ΔW_c is bilinear in α̃_c = (1, α_c)
// and β̃_c = (1, β_c), element 0 standing for the frozen offset, so Σ p_c ΔW_c needs only Γ = Σ p_c
// β̃_c α̃_cᵀ; the mean of the coefficients gives another matrix, off by their covariance over the
// clients. Stateless; in the type of the inputs.
//
// Shape legend: K bases of a factor, R rank, I in, O out.

#include <span>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

struct NolaCoefficients {
  at::Tensor alpha_K;
  at::Tensor beta_K;
};

/// The same sums over k_max bases: zeros behind, and √(k_max/k) on what is there, because the sums
/// carry 1/√k. kInvalidArgument if k_max is less than k.
[[nodiscard]] Result<NolaCoefficients> PadNola(const NolaCoefficients& client, int64_t k_max);

/// Γ [1+K × 1+K], rows β̃, columns α̃, of clients padded to one K. kInvalidArgument naming the client
/// whose sizes differ, or if weights and clients do not match.
[[nodiscard]] Result<at::Tensor> NolaGamma(std::span<const NolaCoefficients> clients,
                                           std::span<const double> weights);

/// The frozen tensors of one layer: bases as drawn, before 1/√K, and offsets.
struct NolaFrozen {
  at::Tensor bases_A_KRI;
  at::Tensor bases_B_KOR;
  at::Tensor offset_A_RI;
  at::Tensor offset_B_OR;
};

/// ΔW = s·Σ_ji Γ_ji B̃_j Ã_i as factors at scale 1: Γ = Σ_q σ_q u_q v_qᵀ gives one pair of rank R
/// for each singular value that is not noise, so the rank is at most R times the number of clients.
[[nodiscard]] LowRank NolaFactors(const at::Tensor& gamma, const NolaFrozen& frozen, double scale);

}  // namespace weft
