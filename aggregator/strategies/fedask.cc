// fedask: the exact mean seen through a sketch (FedASK, 2507.09990): Y = TΩ, Q = orth(Y), P = TᵀQ,
// T ≈ QPᵀ for the target T, of which two sums that are linear in the updates are needed and no
// update by itself. Exact where T's rank is at most the sketch's columns. α/r is counted, which the
// released code leaves out.

#include <algorithm>

#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slot_strategy.h"
#include "aggregator/strategies/target.h"
#include "common/base/random.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"global-rank", "energy", "split", "oversample"};

// Ω [I×L], the same in every place that merges this round.
at::Tensor Omega(const LinearSite& layer, int64_t columns, uint64_t round) {
  at::Tensor omega = at::empty({layer.in, columns}, at::kDouble);
  RandomStream stream = RandomStream::Derive(round, {"sketch", layer.path});
  auto* values = omega.mutable_data_ptr<double>();
  for (int64_t i = 0; i < omega.numel(); ++i) values[i] = stream.Normal();
  return omega;
}

class FedAsk final : public SlotStrategy {
 public:
  std::string_view name() const override { return "fedask"; }
  StrategyTraits traits() const override {
    return {.needs_each_update = false,
            .mixed_ranks = true,
            .mixed_methods = true,
            .gauge_free = true,
            .exact = true,
            .any_weights = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    const int64_t cap = SiteRank(input.global.init, layer);
    WEFT_TRY_ASSIGN(const SiteTarget target, TargetOf(input, site));
    LowRankSum whole = target.sum;
    whole.Add(target.rest);
    const int64_t columns =
        std::min(cap + input.settings.oversample, std::min(layer.in, layer.out));
    SiteTarget seen{LowRankSum(layer.out, layer.in), LowRankSum(layer.out, layer.in)};
    seen.sum.Add(Sketched(whole, Omega(layer, columns, input.round)));
    SiteMerge merge = CutToRank(input, site, std::move(seen), cap);
    // What the sketch does not see is cut away with the rest.
    merge.whole_energy = GramSquare(whole);
    merge.cut_energy = std::max(0.0, merge.whole_energy - GramSquare(merge.factors));
    merge.sum = target.sum;
    merge.sum_is_mean = target.sum_is_mean;
    merge.rest = target.rest;
    merge.before_truncation = std::move(whole);
    merge.frame.reset();  // it is that of the sketch
    merge.memory = target.memory;
    return merge;
  }
};

}  // namespace

const Strategy& FedAskStrategy() {
  static const FedAsk strategy;
  return strategy;
}

}  // namespace weft
