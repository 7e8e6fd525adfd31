// fedmomentum: FedMomentum-style (2603.08014). The exact mean of what clients trained, in singular
// form: its leading directions are what clients go on with, so that these stay what they were from
// round to round, and the rest is folded beside them, frozen.

#include "aggregator/strategies/residual.h"
#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slot_strategy.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"stack-budget-mb"};

class FedMomentum final : public SlotStrategy {
 public:
  std::string_view name() const override { return "fedmomentum"; }
  StrategyTraits traits() const override {
    return {.mixed_ranks = true, .mixed_methods = true, .gauge_free = true, .exact = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    WEFT_TRY_ASSIGN(const SentMean sent, MeanOfSent(input, site));
    WEFT_TRY_ASSIGN(LowRankSum trained, input.updates.Mean(site));
    trained.Add(UntrainedTail(input.global, site, sent));
    trained.Add(sent.others, -1);
    const int64_t kept = SiteRank(input.global.init, layer);
    const Recompressed svd = Recompress(trained, [&](const at::Tensor&) { return kept; });
    const LowRank whole = svd.BeforeCutting();
    const int64_t tail = whole.A_RI.size(0) - svd.S_Q.size(0);
    LowRankSum residual(layer.out, layer.in);
    residual.Add(
        {whole.A_RI.narrow(0, svd.S_Q.size(0), tail), whole.B_OR.narrow(1, svd.S_Q.size(0), tail)});
    return WithFrozenStack(input, site, {svd.V_IQ.t(), svd.U_OQ * svd.S_Q}, residual, sent);
  }

 protected:
  bool tail_on_client() const override { return true; }
};

}  // namespace

const Strategy& FedMomentumStrategy() {
  static const FedMomentum strategy;
  return strategy;
}

}  // namespace weft
