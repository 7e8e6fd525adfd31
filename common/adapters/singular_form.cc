#include "common/adapters/singular_form.h"

#include <algorithm>

// Shape legend: R rank of the factors, I in, O out, Q = min(R, O, I).

namespace weft {

void FixSigns(at::Tensor& U_OQ, at::Tensor& V_IQ) {
  if (U_OQ.size(1) == 0) return;
  const at::Tensor largest = U_OQ.gather(0, U_OQ.abs().argmax(0, /*keepdim=*/true));
  const at::Tensor signs = at::where(largest < 0, -at::ones_like(largest), at::ones_like(largest));
  U_OQ = U_OQ * signs;
  V_IQ = V_IQ * signs;
}

SingularForm SingularForm::Leading(int64_t rank) const {
  const int64_t kept = std::clamp<int64_t>(rank, 0, this->rank());
  return {U_OQ.narrow(1, 0, kept), S_Q.narrow(0, 0, kept), V_IQ.narrow(1, 0, kept)};
}

LowRank SingularForm::Balanced() const {
  const at::Tensor root_Q = S_Q.sqrt();
  return {(V_IQ * root_Q).t().contiguous(), U_OQ * root_Q};
}

SingularForm SingularFormOf(const LowRank& factors) {
  const at::NoGradGuard no_grad;
  const auto [Q_B, R_B] = at::linalg_qr(factors.B_OR.to(at::kDouble), "reduced");
  const auto [Q_A, R_A] = at::linalg_qr(factors.A_RI.to(at::kDouble).t(), "reduced");
  const auto [u, s, vh] = at::linalg_svd(at::matmul(R_B, R_A.t()), /*full_matrices=*/false);
  SingularForm form{at::matmul(Q_B, u), s, at::matmul(Q_A, vh.t())};
  FixSigns(form.U_OQ, form.V_IQ);
  return form;
}

}  // namespace weft
