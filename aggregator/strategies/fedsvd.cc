// fedsvd: B trains on a common A as under ffa, and every strategy.period rounds the SVD of B̄A gives
// both anew (FedSVD, Lee et al. 2025): A = Vᵀ, B = U·S. Its rank is at most that of the factors, so
// nothing is cut.

#include "aggregator/strategies/frozen_side.h"
#include "aggregator/strategies/rules.h"
#include "common/adapters/singular_form.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"period"};

class FedSvd final : public FrozenSideStrategy {
 public:
  std::string_view name() const override { return "fedsvd"; }
  StrategyTraits traits() const override {
    StrategyTraits traits = FrozenSideStrategy::traits();
    traits.keeps_basis = false;
    return traits;
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Status Check(const StrategySettings& settings) const override {
    if (settings.optimizer.name == "none") return OkStatus();
    return InvalidArgument(Str("[fedsvd] server-optimizer \"", settings.optimizer.name,
                               "\" remembers a basis that this rule changes every strategy.period "
                               "rounds; use it with ffa"));
  }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey& survey,
                              size_t site) const override {
    WEFT_TRY_ASSIGN(SiteMerge merge, FrozenSideStrategy::MergeSite(input, survey, site));
    if (input.round % static_cast<uint64_t>(input.settings.period) != 0) return merge;
    if (!merge.factors.B_OR.any().item<bool>()) return merge;  // nothing learned, nothing to turn
    const SingularForm form = SingularFormOf(merge.factors);
    merge.factors = {form.V_IQ.t(), form.U_OQ * form.S_Q};
    return merge;
  }

 protected:
  std::string TrainedIn(uint64_t) const override { return "B"; }
};

}  // namespace

const Strategy& FedSvdStrategy() {
  static const FedSvd strategy;
  return strategy;
}

}  // namespace weft
