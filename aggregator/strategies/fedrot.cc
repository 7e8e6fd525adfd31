// fedrot: the mean of the factors after each client's pair was turned towards what it was sent
// (FedRot-LoRA, 2602.23638): B_k A_k = (B_k R)(Rᵀ A_k), R the rotation that brings A_k (in odd
// rounds; in even ones B_k) nearest to the reference, softened: the polar factor of (1 − λ)I + λR.
// The paper's clients turn their own factors; who does it changes nothing.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"soften"};

// UVᵀ of M = UΣVᵀ.
at::Tensor Polar(const at::Tensor& M) {
  const auto [U, S, Vh] = at::linalg_svd(M, /*full_matrices=*/false);
  return at::matmul(U, Vh);
}

// R = V·diag(1, …, det(V Uᵀ))·Uᵀ of M = reference·ownᵀ = U Σ Vᵀ: a rotation, not a mirror.
at::Tensor Rotation(const at::Tensor& M) {
  const auto [U, S, Vh] = at::linalg_svd(M, /*full_matrices=*/false);
  at::Tensor signs = at::ones_like(S);
  signs[-1] = at::linalg_det(at::matmul(Vh.t(), U.t()));
  return at::matmul(Vh.t() * signs, U.t());
}

class FedRot final : public FactorStrategy {
 public:
  std::string_view name() const override { return "fedrot"; }
  StrategyTraits traits() const override { return {.keeps_basis = true}; }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const LinearSite& layer = input.global.adapter.sites[site].site;
    const int64_t rank = TrainedSlots(input.global, site);
    const auto options = at::TensorOptions().dtype(at::kDouble);
    LowRank mean{at::zeros({rank, layer.in}, options), at::zeros({layer.out, rank}, options)};
    for (size_t k = 0; k < input.updates.size(); ++k) {
      const ClientPlan& plan = input.updates.plan(k);
      WEFT_TRY(CheckFactors(name(), plan.adapter).Within(Str("client ", plan.client)));
      WEFT_TRY_ASSIGN(const LowRank own, input.updates.Factors(k, site));
      if (own.A_RI.size(0) != rank) {
        return InvalidArgument(Str("[fedrot] client ", plan.client, ": rank ", own.A_RI.size(0),
                                   " at ", layer.path, ", wanted ", rank,
                                   ": it turns factors of one rank only; use exact-svd"));
      }
      WEFT_TRY_ASSIGN(const std::optional<LowRank> sent, Sent(input.global, site, plan));
      const at::Tensor towards = input.round % 2 == 1 ? at::matmul(sent->A_RI, own.A_RI.t())
                                                      : at::matmul(sent->B_OR.t(), own.B_OR);
      const at::Tensor turn = Softened(towards, input.settings.soften);
      mean.A_RI.add_(at::matmul(turn.t(), own.A_RI), input.updates.weight(k));
      mean.B_OR.add_(at::matmul(own.B_OR, turn), input.updates.weight(k));
    }
    return OwnFactors(std::move(mean));
  }

 private:
  static at::Tensor Softened(const at::Tensor& towards, double share) {
    const at::Tensor identity = at::eye(towards.size(0), towards.options());
    if (!towards.any().item<bool>()) return identity;  // no reference yet: B = 0
    return Polar((1 - share) * identity + share * Rotation(towards));
  }
};

}  // namespace

const Strategy& FedRotStrategy() {
  static const FedRot strategy;
  return strategy;
}

}  // namespace weft
