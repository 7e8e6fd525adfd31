#include "aggregator/strategies/target.h"

#include <algorithm>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/server_optimizer.h"
#include "aggregator/strategies/slots.h"
#include "common/adapters/singular_form.h"

// Shape legend: O out, I in, R rank, Q number of singular values.

namespace weft {
namespace {

// Below this share of the largest singular value a slot is as good as empty. Splitting √σ on both
// sides would leave it without a gradient on either.
constexpr double kEmptySlot = 1e-6;

// B = U·S, A = Vᵀ ("left"), or √S on both sides ("balanced").
LowRank Split(const Recompressed& svd, const std::string& split) {
  if (split == "left" || svd.S_Q.size(0) == 0) return {svd.V_IQ.t(), svd.U_OQ * svd.S_Q};
  const at::Tensor root = svd.S_Q.sqrt();
  const at::Tensor empty = svd.S_Q <= kEmptySlot * svd.S_Q[0];
  const at::Tensor on_A = at::where(empty, at::ones_like(root), root);
  const at::Tensor on_B = at::where(empty, svd.S_Q, root);
  return {(svd.V_IQ * on_A).t(), svd.U_OQ * on_B};
}

LowRankSum Whole(const SiteState& site) {
  LowRankSum whole(site.site.out, site.site.in);
  if (site.Get("B").any().item<bool>()) whole.Add({site.Get("A"), site.Get("B")});
  return whole;
}

Result<SiteTarget> TargetFrom(const MergeInput& input, size_t site, bool fresh) {
  const SiteState& old = input.global.adapter.sites[site];
  const LinearSite& layer = old.site;
  const LowRankSum nothing(layer.out, layer.in);
  const LowRankSum before = fresh ? nothing : Whole(old);
  SiteTarget target{nothing, nothing};
  if (LooksAtElements(input.settings.robust)) {
    WEFT_TRY_ASSIGN(const at::Tensor change_OI, ElementwiseChange(input, site, fresh));
    target.sum.AddMatrix(change_OI);
    target.sum_is_mean = false;
    target.rest = before;
  } else {
    WEFT_TRY_ASSIGN(target.sum, input.updates.Mean(site));
    if (!fresh) {
      WEFT_TRY_ASSIGN(const SentMean sent, MeanOfSent(input, site));
      target.rest = Untrained(old, sent);
    }
  }
  const ServerOptimizerSettings& optimizer = input.settings.optimizer;
  if (optimizer.name == "none") return target;
  target.memory = MemoryOf(input.global.memory, layer.path);
  if (!AnyoneCounts(input.updates)) return target;  // no step, and no time passes for its memory
  LowRankSum change = target.sum;
  change.Add(target.rest);
  change.Add(before, -1);
  target.sum_is_mean = false;
  target.sum = FollowProduct(optimizer, change, SiteRank(input.global.init, layer), target.memory);
  target.rest = before;
  return target;
}

}  // namespace

Result<SiteTarget> TargetOf(const MergeInput& input, size_t site) {
  return TargetFrom(input, site, /*fresh=*/false);
}

Result<SiteTarget> GrowthOf(const MergeInput& input, size_t site) {
  return TargetFrom(input, site, /*fresh=*/true);
}

SiteMerge CutTo(const MergeInput& input, size_t site, SiteTarget target,
                const std::function<int64_t(const at::Tensor&)>& choose_rank) {
  const LinearSite& layer = input.global.adapter.sites[site].site;
  LowRankSum whole = target.sum;
  whole.Add(target.rest);
  const Recompressed svd = Recompress(whole, choose_rank);
  SiteMerge merge;
  merge.factors = Split(svd, input.settings.split);
  merge.sum = std::move(target.sum);
  merge.sum_is_mean = target.sum_is_mean;
  merge.rest = std::move(target.rest);
  merge.memory = std::move(target.memory);
  if (svd.frame) {
    merge.frame = svd.frame;
  } else {
    merge.before_truncation = LowRankSum(layer.out, layer.in);
    merge.before_truncation.Add(svd.BeforeCutting());
  }
  merge.spectrum = svd.spectrum;
  merge.cut_energy = EnergyFrom(svd.spectrum, svd.S_Q.size(0));
  merge.whole_energy = EnergyFrom(svd.spectrum, 0);
  return merge;
}

SiteMerge CutToRank(const MergeInput& input, size_t site, SiteTarget target, int64_t cap) {
  return CutTo(input, site, std::move(target), [&](const at::Tensor& spectrum) {
    const double energy = input.settings.energy;
    return energy > 0 ? std::min(cap, RankOfEnergy(spectrum, energy)) : cap;
  });
}

}  // namespace weft
