#include "common/adapters/distance.h"

#include <cmath>

#include "common/base/check.h"

// Shape legend: R rank (of both adapters together for a difference), I in, O out.

namespace weft {
namespace {

// ‖B·A‖_F = ‖R_B·R_Aᵀ‖_F with the triangular factors of B = Q_B R_B and Aᵀ = Q_A R_A. Unlike traces
// of Gram matrices this keeps its digits when B·A is a small difference of large products.
double ProductNorm(const at::Tensor& A_RI, const at::Tensor& B_OR) {
  const at::Tensor r_b = std::get<1>(at::linalg_qr(B_OR, "r"));
  const at::Tensor r_a = std::get<1>(at::linalg_qr(A_RI.t(), "r"));
  return r_b.mm(r_a.t()).norm().item<double>();
}

LowRank InDouble(const LowRank& factors) {
  return {factors.A_RI.detach().to(at::kCPU, at::kDouble),
          factors.B_OR.detach().to(at::kCPU, at::kDouble)};
}

}  // namespace

double NormOf(const LowRank& factors) {
  const LowRank exact = InDouble(factors);
  return ProductNorm(exact.A_RI, exact.B_OR);
}

double DistanceBetween(const LowRankAdapter& a, const LowRankAdapter& b) {
  WEFT_CHECK(b.empty() || a.size() == b.size(), a.size(), " sites against ", b.size());
  double squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    LowRank both = InDouble(a[i].factors);
    if (!b.empty()) {
      WEFT_CHECK(a[i].site == b[i].site, a[i].site.path);
      const LowRank other = InDouble(b[i].factors);
      both.A_RI = at::cat({both.A_RI, other.A_RI}, 0);
      both.B_OR = at::cat({both.B_OR, -other.B_OR}, 1);
    }
    squares += std::pow(ProductNorm(both.A_RI, both.B_OR), 2);
  }
  return std::sqrt(squares);
}

}  // namespace weft
