#include "common/adapters/nola_merge.h"

#include <cmath>

#include "common/adapters/nola.h"
#include "common/base/str.h"

namespace weft {
namespace {

// (1, c)
at::Tensor WithOffset(const at::Tensor& coefficients_K) {
  return at::cat({at::ones({1}, coefficients_K.options()), coefficients_K});
}

// For each row c̃ of the coefficients: c̃_0·offset + (1/√K) Σ c̃_i·basis_i.
at::Tensor Combine(const at::Tensor& rows_QK1, const at::Tensor& bases, const at::Tensor& offset) {
  const at::Tensor coefficients_QK = rows_QK1.narrow(1, 1, rows_QK1.size(1) - 1);
  const at::Tensor offsets_QE = rows_QK1.narrow(1, 0, 1).mm(offset.reshape({1, -1}));
  const at::Tensor sums_QE = CombineBases(coefficients_QK, bases.flatten(1), offsets_QE);
  return sums_QE.view({rows_QK1.size(0), offset.size(0), offset.size(1)});
}

}  // namespace

Result<NolaCoefficients> PadNola(const NolaCoefficients& client, int64_t k_max) {
  const auto pad = [&](const at::Tensor& c_K) -> Result<at::Tensor> {
    const int64_t k = c_K.size(0);
    if (k < 1 || k > k_max) {
      return InvalidArgument(Str("[nola] ", k, " coefficients, wanted 1 to ", k_max));
    }
    const double factor = std::sqrt(static_cast<double>(k_max) / static_cast<double>(k));
    return at::cat({c_K * factor, at::zeros({k_max - k}, c_K.options())});
  };
  NolaCoefficients padded;
  WEFT_TRY_ASSIGN(padded.alpha_K, pad(client.alpha_K));
  WEFT_TRY_ASSIGN(padded.beta_K, pad(client.beta_K));
  return padded;
}

Result<at::Tensor> NolaGamma(std::span<const NolaCoefficients> clients,
                             std::span<const double> weights) {
  if (clients.empty() || clients.size() != weights.size()) {
    return InvalidArgument(
        Str("[nola] ", clients.size(), " clients and ", weights.size(), " weights"));
  }
  at::Tensor gamma;
  for (size_t c = 0; c < clients.size(); ++c) {
    const at::Tensor alpha = WithOffset(clients[c].alpha_K);
    const at::Tensor beta = WithOffset(clients[c].beta_K);
    const at::Tensor share = at::outer(beta, alpha) * weights[c];
    if (gamma.defined() && gamma.sizes() != share.sizes()) {
      return InvalidArgument(Str("[nola] client ", c, ": ", share.sizes(),
                                 " coefficients with the offsets, the first client has ",
                                 gamma.sizes(), "; pad them to one number of bases"));
    }
    gamma = gamma.defined() ? gamma + share : share;
  }
  return gamma;
}

LowRank NolaFactors(const at::Tensor& gamma, const NolaFrozen& frozen, double scale) {
  const auto [U, S, Vh] = at::linalg_svd(gamma, /*full_matrices=*/false);
  const double eps = gamma.scalar_type() == at::kDouble ? 1e-14 : 1e-6;
  const int64_t kept = std::max<int64_t>(1, at::count_nonzero(S > S[0] * eps).item<int64_t>());
  const at::Tensor beta_QK = (U.narrow(1, 0, kept) * S.narrow(0, 0, kept)).t();
  const at::Tensor alpha_QK = Vh.narrow(0, 0, kept);
  const at::Tensor B_QOR = Combine(beta_QK, frozen.bases_B_KOR, frozen.offset_B_OR);
  const at::Tensor A_QRI = Combine(alpha_QK, frozen.bases_A_KRI, frozen.offset_A_RI);
  const int64_t out = B_QOR.size(1), in = A_QRI.size(2);
  return {A_QRI.reshape({-1, in}), B_QOR.permute({1, 0, 2}).reshape({out, -1}) * scale};
}

}  // namespace weft
