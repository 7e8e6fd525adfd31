// lora-fair: the mean of the factors, B̄ corrected towards the exact mean of the products
// (LoRA-FAIR, Bian et al. 2025). The paper minimises a cosine by gradient steps; ours is the
// least-squares form, which is closed:
//   B = B̄ + E Āᵀ (Ā Āᵀ + λI)⁻¹,   E = Σ p_k B_k A_k − B̄ Ā,
// of which only E Āᵀ = Σ p_k B_k (A_k Āᵀ) − B̄ (Ā Āᵀ) is ever formed. λ = strategy.ridge.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"ridge"};

class LoraFair final : public FactorStrategy {
 public:
  std::string_view name() const override { return "lora-fair"; }
  StrategyTraits traits() const override { return {.mixed_ranks = true, .keeps_basis = true}; }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    WEFT_TRY_ASSIGN(LowRank mean, MeanOfFactors(input, site, WeightsOf(input.updates)));
    WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
    const at::Tensor A_t = mean.A_RI.t();
    const at::Tensor gram_GG = at::matmul(mean.A_RI, A_t);
    const at::Tensor lack_OG = at::matmul(stack.factors.B_OR, at::matmul(stack.factors.A_RI, A_t)) -
                               at::matmul(mean.B_OR, gram_GG);
    const at::Tensor ridge = at::eye(gram_GG.size(0), gram_GG.options()) * input.settings.ridge;
    // X·(G + λI) = E Āᵀ, transposed: the matrix is symmetric.
    mean.B_OR = mean.B_OR + at::linalg_solve(gram_GG + ridge, lack_OG.t()).t();
    return OwnFactors(std::move(mean));
  }
};

}  // namespace

const Strategy& LoraFairStrategy() {
  static const LoraFair strategy;
  return strategy;
}

}  // namespace weft
