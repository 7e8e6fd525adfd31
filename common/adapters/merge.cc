#include "common/adapters/merge.h"

#include <unordered_map>

#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

// Counts are sums of at most rank ones; float32 holds them exactly.
at::Tensor Support(const at::Tensor& factor) { return factor.ne(0).to(at::kFloat); }

// Could most of ΔW be zero? Column i of B and row i of A touch |B_·i|₀·|A_i·|₀ entries at most.
bool IsSparse(const at::Tensor& A_RI, const at::Tensor& B_OR) {
  const at::Tensor touched =
      Support(B_OR).sum(0).to(at::kDouble).dot(Support(A_RI).sum(1).to(at::kDouble));
  return touched.item<double>() < static_cast<double>(B_OR.size(0) * A_RI.size(1));
}

// W + ΔW in W's own type.
at::Tensor DenseSum(const at::Tensor& W_OI, const at::Tensor& A_RI, const at::Tensor& B_OR) {
  return at::addmm(W_OI.to(at::kFloat), B_OR, A_RI).to(W_OI.scalar_type());
}

// The same where a column of B meets a row of A; every other entry keeps its bits (adding a zero
// would turn −0 into 0). Computed on the block of rows and columns that are touched at all.
at::Tensor SparseSum(const at::Tensor& W_OI, const at::Tensor& A_RI, const at::Tensor& B_OR) {
  const at::Tensor rows = B_OR.ne(0).any(1).nonzero().squeeze(1);
  const at::Tensor columns = A_RI.ne(0).any(0).nonzero().squeeze(1);
  const at::Tensor A = A_RI.index_select(1, columns);
  const at::Tensor B = B_OR.index_select(0, rows);
  const at::Tensor touched = Support(B).mm(Support(A)).ne(0);
  at::Tensor merged = W_OI.clone();
  if (touched.numel() == 0) return merged;
  const at::Tensor old = W_OI.index_select(0, rows).index_select(1, columns);
  const at::Tensor sum = at::where(touched, DenseSum(old, A, B), old);
  at::Tensor merged_rows = merged.index_select(0, rows);
  merged_rows.index_copy_(1, columns, sum);
  return merged.index_copy_(0, rows, merged_rows);
}

Result<at::Tensor> Merged(const NamedTensor& weight, const LowRankSite& site, bool transposed) {
  const at::Tensor stored = weight.value.detach();
  const at::Tensor W_OI = transposed && stored.dim() == 2 ? stored.t() : stored;
  if (W_OI.dim() != 2 || W_OI.size(0) != site.site.out || W_OI.size(1) != site.site.in) {
    return InvalidArgument(Str("[merge] ", weight.name, ": shape ", stored.sizes(),
                               ", the adapter "
                               "is for ",
                               site.site.out, "×", site.site.in));
  }
  const at::Tensor A_RI = site.factors.A_RI.to(W_OI.device(), at::kFloat);
  const at::Tensor B_OR = site.factors.B_OR.to(W_OI.device(), at::kFloat);
  const at::Tensor sum_OI =
      IsSparse(A_RI, B_OR) ? SparseSum(W_OI, A_RI, B_OR) : DenseSum(W_OI, A_RI, B_OR);
  at::Tensor merged = (transposed ? sum_OI.t() : sum_OI).contiguous();
  if (!at::isfinite(merged).all().item<bool>()) {
    return FailedPrecondition(Str("[merge] ", weight.name, ": W + ΔW does not fit the stored type ",
                                  c10::toString(stored.scalar_type())));
  }
  return merged;
}

}  // namespace

Result<std::vector<NamedTensor>> MergeIntoWeights(const std::vector<NamedTensor>& weights,
                                                  const LowRankAdapter& adapter,
                                                  const MergeOptions& options) {
  const at::NoGradGuard no_grad;
  std::unordered_map<std::string, size_t> index;  // looked up only
  for (size_t i = 0; i < weights.size(); ++i) index.emplace(weights[i].name, i);
  std::vector<NamedTensor> merged = weights;
  for (const LowRankSite& site : adapter) {
    const auto found = index.find(site.site.path + ".weight");
    if (found == index.end()) {
      return InvalidArgument(Str("[merge] the model has no weight ", site.site.path, ".weight"));
    }
    NamedTensor& weight = merged[found->second];
    WEFT_TRY_ASSIGN(weight.value, Merged(weight, site, options.stored_transposed));
  }
  return merged;
}

}  // namespace weft
