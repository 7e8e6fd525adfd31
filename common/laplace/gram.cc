#include "common/laplace/gram.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "common/base/check.h"
#include "common/base/str.h"

// Shape legend: N vectors, D elements, Q columns of a root, K eigenvalues.

namespace weft {
namespace {

// A peer's sums may be rounded to float32, which leaves them symmetric to this share.
constexpr double kAsymmetry = 1e-5;

// A root takes in this many vectors at a time: the cost of a singular value decomposition grows
// with their square.
constexpr int64_t kRootRows = 256;

// The best root of `rank` columns of columns·columnsᵀ: U·S of the leading singular values (Eckart
// and Young 1936), with columns of zeros where there are fewer.
at::Tensor BestRoot(const at::Tensor& columns_DM, int64_t rank) {
  const auto [U_DM, S_M, V_MM] = at::linalg_svd(columns_DM, /*full_matrices=*/false);
  const int64_t kept = std::min(rank, S_M.size(0));
  at::Tensor root_DQ = U_DM.narrow(1, 0, kept) * S_M.narrow(0, 0, kept);
  if (kept > 0) {
    // Signs are free: the entry of largest magnitude of each column is made positive.
    const at::Tensor largest = root_DQ.gather(0, root_DQ.abs().argmax(0, /*keepdim=*/true));
    root_DQ = at::where(largest < 0, -root_DQ, root_DQ);
  }
  return at::constant_pad_nd(root_DQ, {0, rank - kept}).contiguous();
}

Status CheckValues(const at::Tensor& values, int64_t dim, bool whole) {
  if (!values.defined() || !at::isFloatingType(values.scalar_type())) {
    return InvalidArgument("[laplace] a factor must be of a floating type");
  }
  if (values.dim() != 2 || values.size(0) != dim || (whole && values.size(1) != dim) ||
      values.size(1) == 0) {
    return InvalidArgument(Str("[laplace] a ", whole ? "whole factor" : "root", " is ",
                               values.sizes(), ", wanted [", dim, ", ", whole ? Str(dim) : "rank",
                               "]"));
  }
  if (!at::isfinite(values).all().item<bool>()) {
    return InvalidArgument("[laplace] a factor holds values that are not finite");
  }
  if (!whole) return OkStatus();
  const double largest = values.abs().max().item<double>();
  const double asymmetry = (values - values.t()).abs().max().item<double>();
  if (asymmetry > kAsymmetry * largest) {
    return InvalidArgument(Str("[laplace] a whole factor is not symmetric: entries up to ", largest,
                               " differ by ", asymmetry, " from their mirror images"));
  }
  if (values.diagonal().min().item<double>() < 0) {
    return InvalidArgument("[laplace] a sum of squares on a factor's diagonal is negative");
  }
  return OkStatus();
}

}  // namespace

Gram Gram::Whole(int64_t dim) { return {at::zeros({dim, dim}, at::kDouble), true}; }

Gram Gram::Root(int64_t dim, int64_t rank) {
  WEFT_CHECK(rank >= 1, "a root of ", rank, " columns");
  return {at::zeros({dim, rank}, at::kDouble), false};
}

Gram Gram::ForSide(int64_t dim, int64_t root_from, int64_t rank) {
  return dim < root_from ? Whole(dim) : Root(dim, rank);
}

Result<Gram> Gram::From(const at::Tensor& values, int64_t dim, bool whole) {
  WEFT_TRY(CheckValues(values, dim, whole));
  const at::Tensor own = values.detach().to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  if (!whole) return Gram(own.contiguous(), false);
  return Gram(((own + own.t()) / 2).contiguous(), true);
}

void Gram::Add(const at::Tensor& rows_ND) {
  const at::NoGradGuard no_grad;
  WEFT_CHECK(rows_ND.dim() == 2 && rows_ND.size(1) == dim(), "rows of shape ", rows_ND.sizes(),
             " for a factor of ", dim());
  const at::Tensor rows = rows_ND.detach().to(at::kDouble);
  if (values_.device() != rows.device()) values_ = values_.to(rows.device());
  if (whole_) {
    values_ = at::addmm(values_, rows.t(), rows);
    return;
  }
  for (const at::Tensor& piece : rows.split(kRootRows)) {
    values_ = BestRoot(at::cat({values_, piece.t()}, 1), rank());
  }
}

at::Tensor Gram::Matrix() const { return whole_ ? values_ : at::matmul(values_, values_.t()); }

Gram Gram::Times(double factor) const {
  WEFT_CHECK(factor > 0, "a factor times ", factor);
  return {values_ * (whole_ ? factor : std::sqrt(factor)), whole_};
}

Gram Gram::WithRaisedDiagonal(double share, double constant) const {
  WEFT_CHECK(whole_, "a root has no diagonal to raise");
  return {values_ + at::diag(values_.diagonal() * share + constant), true};
}

FactorEigen Gram::Decompose() const {
  if (whole_) {
    const auto [values_D, vectors_DD] = at::linalg_eigh(values_);
    return {values_D.clamp_min(0), vectors_DD};
  }
  // root = U S Vᵀ, so root·rootᵀ = U S² Uᵀ.
  const auto [U_DK, S_K, V_KQ] = at::linalg_svd(values_, /*full_matrices=*/false);
  return {S_K.square(), U_DK};
}

Gram Gram::Sum(std::span<const Gram* const> parts, std::optional<int64_t> rank) {
  WEFT_CHECK(!parts.empty(), "the sum of no factors has no shape");
  const Gram& first = *parts.front();
  std::vector<at::Tensor> values;
  int64_t widest = 0;
  for (const Gram* part : parts) {
    WEFT_CHECK(part->whole() == first.whole() && part->dim() == first.dim(), "factors of ",
               first.dim(), " and ", part->dim(), " elements");
    values.push_back(part->values().to(first.values().device()));
    widest = std::max(widest, part->rank());
  }
  if (!first.whole()) return {BestRoot(at::cat(values, 1), rank.value_or(widest)), false};
  at::Tensor sum_DD = at::zeros_like(first.values());
  for (const at::Tensor& part : values) sum_DD.add_(part);
  return {sum_DD, true};
}

}  // namespace weft
