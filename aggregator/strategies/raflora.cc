// raflora: raFLoRA-style (2602.13486; our reading of its formula). The mean of products, but slot
// by slot over the clients that have it: Σ_h Σ_{k owns h} (p_k / P_h) s_k B_k[:,h] A_k[h,:], cut to
// the global rank by SVD. Slots mean something only because every round's broadcast is ordered by
// singular values.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/target.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"global-rank", "energy", "split"};

class RaFlora final : public FactorStrategy {
 public:
  std::string_view name() const override { return "raflora"; }
  StrategyTraits traits() const override { return {.mixed_ranks = true}; }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
    std::vector<int64_t> slot_of;  // of every rank of the stack
    int64_t slots = 0;
    for (size_t k = 0; k + 1 < stack.begins.size(); ++k) {
      const int64_t rank = stack.begins[k + 1] - stack.begins[k];
      for (int64_t j = 0; j < rank; ++j) slot_of.push_back(j);
      slots = std::max(slots, rank);
    }
    const at::Tensor owners =
        at::tensor(SlotOwners(stack, WeightsOf(input.updates), slots), at::kDouble)
            .index_select(0, at::tensor(slot_of, at::kLong))
            .to(stack.factors.B_OR.device());
    SiteTarget target{LowRankSum(layer.out, layer.in), LowRankSum(layer.out, layer.in)};
    target.sum_is_mean = false;
    target.sum.Add({stack.factors.A_RI, stack.factors.B_OR / owners});
    return CutToRank(input, site, std::move(target), SiteRank(input.global.init, layer));
  }
};

}  // namespace

const Strategy& RaFloraStrategy() {
  static const RaFlora strategy;
  return strategy;
}

}  // namespace weft
