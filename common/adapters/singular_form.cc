#include "common/adapters/singular_form.h"

#include <algorithm>

// Shape legend: R rank of the factors, I in, O out, Q = min(R, O, I).

namespace weft {
namespace {

// A product leaves the sign of each pair of vectors free; fixing it makes equal updates equal.
void FixSigns(SingularForm& form) {
  if (form.rank() == 0) return;
  const at::Tensor largest =
      form.U_OQ.gather(0, form.U_OQ.abs().argmax(0, /*keepdim=*/true)).squeeze(0);
  const at::Tensor signs_Q =
      at::where(largest < 0, -at::ones_like(largest), at::ones_like(largest));
  form.U_OQ = form.U_OQ * signs_Q;
  form.V_IQ = form.V_IQ * signs_Q;
}

}  // namespace

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
  FixSigns(form);
  return form;
}

}  // namespace weft
