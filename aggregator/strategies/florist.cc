// florist: the exact mean with as many ranks as its energy needs, layer by layer (FLoRIST,
// 2506.09199): the least p with Σ_{i≤p} σ_i² ≥ τ Σ σ_i², τ = 0.99 unless strategy.energy says
// otherwise. Clients of lower rank train the leading slots, the others lie frozen beside them.

#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slot_strategy.h"
#include "aggregator/strategies/target.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"energy", "split"};
constexpr double kEnergy = 0.99;

class Florist final : public SlotStrategy {
 public:
  std::string_view name() const override { return "florist"; }
  StrategyTraits traits() const override {
    return {.mixed_ranks = true,
            .mixed_methods = true,
            .gauge_free = true,
            .exact = true,
            .any_weights = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    StrategySettings settings = input.settings;
    if (settings.energy == 0) settings.energy = kEnergy;
    WEFT_TRY_ASSIGN(SiteTarget target, TargetOf(input, site));
    const MergeInput with_energy{settings, input.global, input.updates, input.round, input.whole};
    return CutToRank(with_energy, site, std::move(target), std::min(layer.out, layer.in));
  }

 protected:
  bool tail_on_client() const override { return true; }
};

}  // namespace

const Strategy& FloristStrategy() {
  static const Florist strategy;
  return strategy;
}

}  // namespace weft
