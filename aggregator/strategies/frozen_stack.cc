#include "aggregator/strategies/frozen_stack.h"

#include <algorithm>
#include <array>

#include "aggregator/strategies/slots.h"

namespace weft {

int64_t NumericalRank(const at::Tensor& spectrum, double norm) {
  if (spectrum.size(0) == 0) return 0;
  return (spectrum > kNoise * norm).sum().item<int64_t>();
}

LowRank FrozenPart(const GlobalState& global, size_t site) {
  const SiteState& old = global.adapter.sites[site];
  const int64_t trained = TrainedSlots(global, site);
  const int64_t frozen = old.Get("A").size(0) - trained;
  return {old.Get("A").narrow(0, trained, frozen).to(at::kDouble),
          old.Get("B").narrow(1, trained, frozen).to(at::kDouble)};
}

int64_t RankWithinBudget(const MergeInput& input, size_t site) {
  double widths = 0;
  for (const SiteState& each : input.global.adapter.sites) {
    widths += static_cast<double>(each.site.in + each.site.out);
  }
  const LinearSite& layer = input.global.adapter.sites[site].site;
  // Bytes a slot: 4·(in + out); the site's share: budget·(in + out) / widths.
  const double budget = static_cast<double>(input.settings.stack_budget_mb) * 1e6;
  return std::clamp<int64_t>(static_cast<int64_t>(budget / (4 * widths)), 1,
                             std::min(layer.in, layer.out));
}

GrownStack GrowStack(const MergeInput& input, size_t site, const LowRankSum& residual,
                     double scale) {
  const Recompressed own = Recompress(
      residual, [&](const at::Tensor& spectrum) { return NumericalRank(spectrum, scale); });
  const LowRank old = FrozenPart(input.global, site);
  GrownStack grown{SideBySide(std::array{old, LowRank{own.V_IQ.t(), own.U_OQ * own.S_Q}})};
  const int64_t most = RankWithinBudget(input, site);
  if (grown.factors.A_RI.size(0) <= most) return grown;
  LowRankSum whole(residual.out(), residual.in());
  whole.Add(grown.factors);
  const Recompressed svd = Recompress(whole, [&](const at::Tensor& spectrum) {
    return std::min(most, NumericalRank(spectrum, scale));
  });
  grown.factors = {svd.V_IQ.t(), svd.U_OQ * svd.S_Q};
  grown.cut_energy = EnergyFrom(svd.spectrum, svd.S_Q.size(0));
  return grown;
}

}  // namespace weft
