// exact-svd: the exact mean of the clients' products, cut to the global rank by SVD, with the tail
// that low-rank clients were not sent carried over (spec/aggregation.md 4). Without the carry it is
// FlexLoRA (Bai et al. 2024).

#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slot_strategy.h"
#include "aggregator/strategies/target.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"global-rank", "energy", "carry",
                                      "slots",       "split",  "tail-on-client"};

class ExactSvd final : public SlotStrategy {
 public:
  std::string_view name() const override { return "exact-svd"; }
  StrategyTraits traits() const override {
    return {.mixed_ranks = true,
            .mixed_methods = true,
            .gauge_free = true,
            .exact = true,
            .any_weights = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Status Check(const StrategySettings& settings) const override {
    if (settings.carry) return OkStatus();
    if (settings.slots != "random" && !settings.tail_on_client) return OkStatus();
    return InvalidArgument(
        "[exact-svd] strategy.carry is off, so slots that a client is not given to train are lost: "
        "slots \"random\" and tail-on-client need the carry");
  }

  // G' = G + Σ c_k (s_k B_k A_k − sent_k). For c adding up to 1 that is the mean of the products
  // and one more block: the part of G that nobody was sent.
  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    SiteTarget target{{}, LowRankSum(layer.out, layer.in)};
    if (input.settings.carry) {
      WEFT_TRY_ASSIGN(target, TargetOf(input, site));
    } else {
      WEFT_TRY_ASSIGN(target.sum, input.updates.Mean(site));
    }
    return CutToRank(input, site, std::move(target), SiteRank(input.global.init, layer));
  }

 protected:
  bool DrawsSlots(const StrategySettings& settings) const override {
    return settings.slots == "random" || (settings.slots == "auto" && settings.carry);
  }
};

}  // namespace

const Strategy& ExactSvdStrategy() {
  static const ExactSvd strategy;
  return strategy;
}

}  // namespace weft
