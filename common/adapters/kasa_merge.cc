#include "common/adapters/kasa_merge.h"

#include <algorithm>
#include <vector>

#include "common/adapters/kasa.h"
#include "common/adapters/singular_form.h"
#include "common/base/check.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

bool Same(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && at::equal(a, b);
}

bool ShareVectors(std::span<const KasaUpdate> updates) {
  const KasaFactors& first = updates[0].factors;
  return std::all_of(updates.begin(), updates.end(), [&](const KasaUpdate& update) {
    return Same(update.factors.A_RI, first.A_RI) && Same(update.factors.B_OR, first.B_OR);
  });
}

at::Tensor Doubles(const at::Tensor& tensor) { return tensor.detach().to(at::kDouble); }

}  // namespace

KasaFactors StackKasa(std::span<const KasaUpdate> updates, double scaling) {
  WEFT_CHECK(!updates.empty() && scaling != 0, "a stack of ", updates.size(), " at scale ",
             scaling);
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> A;
  std::vector<at::Tensor> B;
  std::vector<at::Tensor> sigma;
  for (const KasaUpdate& update : updates) {
    A.push_back(Doubles(update.factors.A_RI));
    B.push_back(Doubles(update.factors.B_OR));
    sigma.push_back(Doubles(update.factors.sigma_R) * (update.weight * update.scaling / scaling));
  }
  if (ShareVectors(updates)) return {A[0], B[0], at::stack(sigma).sum(0)};
  return {at::cat(A, 0), at::cat(B, 1), at::cat(sigma)};
}

KasaFactors OrthonormalKasa(const KasaFactors& factors, int64_t rank) {
  const SingularForm form = SingularFormOf(LowerKasa(factors)).Leading(rank);
  return {form.V_IQ.t().contiguous(), form.U_OQ.contiguous(), form.S_Q.contiguous()};
}

KasaFactors OrthonormalKasa(const KasaFactors& factors) {
  return OrthonormalKasa(factors, factors.sigma_R.size(0));
}

LowRank LowerKasa(const KasaFactors& factors, double scaling) {
  return {factors.A_RI, factors.B_OR * (factors.sigma_R * scaling)};
}

at::Tensor MeanTruncatedBase(const at::Tensor& W_OI, std::span<const KasaTruncation> clients) {
  const at::NoGradGuard no_grad;
  int64_t most = 0;
  for (const KasaTruncation& client : clients) most = std::max(most, client.removed);
  at::Tensor weight_R = at::zeros({most}, W_OI.options().dtype(at::kDouble));
  for (const KasaTruncation& client : clients) {
    weight_R.narrow(0, 0, client.removed).add_(client.weight);
  }
  const LowRank removed = SmallestComponents(W_OI, most);
  return Doubles(W_OI) - at::matmul(removed.B_OR * weight_R, removed.A_RI);
}

}  // namespace weft
