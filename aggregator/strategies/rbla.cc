// rbla: slot by slot the mean over the clients that have that slot, their weights divided by their
// sum (RBLA, Chen et al. 2024): nothing is diluted by clients of lower rank. A slot that nobody has
// stays as it was.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

class Rbla final : public FactorStrategy {
 public:
  std::string_view name() const override { return "rbla"; }
  StrategyTraits traits() const override {
    return {.needs_each_update = false, .mixed_ranks = true, .keeps_basis = true};
  }
  std::span<const std::string_view> keys() const override { return {}; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const std::vector<double> weights = WeightsOf(input.updates);
    WEFT_TRY_ASSIGN(LowRank mean, MeanOfFactors(input, site, weights));
    const int64_t slots = mean.A_RI.size(0);
    std::vector<double> owned_by(static_cast<size_t>(slots), 0);
    WEFT_TRY(input.updates.EachStack(site, [&](size_t first, const SiteStack& stack) {
      AddSlotOwners(stack, std::span(weights).subspan(first, stack.size()), owned_by);
      return OkStatus();
    }));
    const at::Tensor owners = at::tensor(owned_by, at::kDouble).to(mean.A_RI.device());
    const SiteState& old = input.global.adapter.sites[site];
    const int64_t known = std::min(slots, old.Get("A").size(0));
    LowRank before{at::zeros_like(mean.A_RI), at::zeros_like(mean.B_OR)};
    before.A_RI.narrow(0, 0, known).copy_(old.Get("A").narrow(0, 0, known));
    before.B_OR.narrow(1, 0, known).copy_(old.Get("B").narrow(1, 0, known));
    const at::Tensor owned = owners > 0;
    mean.A_RI = at::where(owned.unsqueeze(1), mean.A_RI / owners.unsqueeze(1), before.A_RI);
    mean.B_OR = at::where(owned, mean.B_OR / owners, before.B_OR);
    return OwnFactors(std::move(mean));
  }
};

}  // namespace

const Strategy& RblaStrategy() {
  static const Rbla strategy;
  return strategy;
}

}  // namespace weft
