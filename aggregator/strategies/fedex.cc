// fedex: the mean of the factors, and beside it, frozen, what that mean lacks to the exact mean of
// the products (FedEx-LoRA, Singhal et al. 2025): E = Σ p_k (B_k − B̄)(A_k − Ā), which is Σ p_k B_k
// A_k − B̄Ā without its cancellation and of rank at most K·r, never a dense matrix. Of mixed ranks
// the factors are padded with zeros, and the slots that a client was not given stay in E.
//
// Shape legend: O out, I in, G trained slots.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/frozen_stack.h"
#include "aggregator/strategies/residual.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"stack-budget-mb"};

class FedEx final : public FactorStrategy {
 public:
  std::string_view name() const override { return "fedex"; }
  StrategyTraits traits() const override {
    return {.mixed_ranks = true, .gauge_free = true, .exact = true, .keeps_basis = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    WEFT_TRY_ASSIGN(const LowRank mean, MeanOfFactors(input, site, WeightsOf(input.updates)));
    WEFT_TRY_ASSIGN(LowRankSum residual, FactorResidual(input, site, mean));
    WEFT_TRY_ASSIGN(const SentMean sent, MeanOfSent(input, site));
    residual.Add(UntrainedTail(input.global, site, sent));
    return WithFrozenStack(input, site, mean, residual, sent);
  }

 protected:
  bool tail_on_client() const override { return true; }
};

}  // namespace

const Strategy& FedExStrategy() {
  static const FedEx strategy;
  return strategy;
}

}  // namespace weft
