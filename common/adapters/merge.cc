#include "common/adapters/merge.h"

#include <unordered_map>

#include "common/base/str.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

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
  const at::Tensor sum_OI = at::addmm(W_OI.to(at::kFloat), B_OR, A_RI);
  at::Tensor merged = (transposed ? sum_OI.t() : sum_OI).to(stored.scalar_type()).contiguous();
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
