#include "aggregator/strategies/residual.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "aggregator/strategies/frozen_stack.h"
#include "aggregator/strategies/target.h"

namespace weft {

Result<LowRankSum> FactorResidual(const MergeInput& input, size_t site, const LowRank& mean) {
  const LinearSite& layer = input.global.adapter.sites[site].site;
  LowRankSum residual(layer.out, layer.in);
  WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const double weight = input.updates.weight(k);
    const LowRank own = stack.Of(k);  // p_k s_k B_k and A_k
    const int64_t rank = own.A_RI.size(0);
    LowRank centred{-mean.A_RI, mean.B_OR * -weight};
    centred.A_RI.narrow(0, 0, rank).add_(own.A_RI);
    centred.B_OR.narrow(1, 0, rank).add_(own.B_OR);
    residual.Add(centred);
  }
  return residual;
}

LowRank UntrainedTail(const GlobalState& global, size_t site, const SentMean& sent) {
  const LowRank all = UntrainedSlots(global.adapter.sites[site], sent);
  const int64_t trained = TrainedSlots(global, site);
  return {all.A_RI.narrow(0, 0, trained), all.B_OR.narrow(1, 0, trained)};
}

Result<SiteMerge> WithFrozenStack(const MergeInput& input, size_t site, const LowRank& trained,
                                  const LowRankSum& residual, const SentMean& sent) {
  SiteMerge merge;
  WEFT_TRY_ASSIGN(merge.sum, input.updates.Mean(site));
  merge.rest = Untrained(input.global.adapter.sites[site], sent);
  const LinearSite& layer = input.global.adapter.sites[site].site;
  const double scale = std::sqrt(GramSquare(trained)) + std::sqrt(GramSquare(merge.sum));
  const GrownStack frozen = GrowStack(input, site, residual, scale);
  const int64_t slots = trained.A_RI.size(0) + frozen.factors.A_RI.size(0);
  if (slots > std::min(layer.in, layer.out)) {
    // As many slots as the layer is wide hold everything: the target itself, its leading directions
    // the ones that train.
    const int64_t least = trained.A_RI.size(0);
    const int64_t most = least + RankWithinBudget(input, site);
    return CutTo(input, site, {std::move(merge.sum), std::move(merge.rest)},
                 [&](const at::Tensor& spectrum) {
                   const double largest = spectrum[0].item<double>();
                   return std::clamp<int64_t>(NumericalRank(spectrum, largest), least, most);
                 });
  }
  merge.factors = SideBySide(std::array{trained, frozen.factors});
  merge.spectrum = Spectrum(merge.factors);
  merge.whole_energy = EnergyFrom(merge.spectrum, 0) + frozen.cut_energy;
  merge.cut_energy = frozen.cut_energy;
  merge.before_truncation = merge.sum;
  merge.before_truncation.Add(merge.rest);
  if (frozen.cut_energy == 0) {
    merge.before_truncation = LowRankSum(residual.out(), residual.in());
    merge.before_truncation.Add(merge.factors);
  }
  return merge;
}

}  // namespace weft
