// fedavg: the mean of the factors (FedIT, Zhang et al. 2024), the scaling absorbed into B and ranks
// padded with zeros. Its product is not the mean of the products: the certificate's
// error_to_ideal says by how much.

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"absorb"};

class FedAvg final : public FactorStrategy {
 public:
  std::string_view name() const override { return "fedavg"; }
  StrategyTraits traits() const override {
    return {.needs_each_update = false, .mixed_ranks = true, .keeps_basis = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey&,
                              size_t site) const override {
    const std::string& word = input.settings.absorb;
    const Absorb absorb = word == "sqrt"  ? Absorb::kSqrt
                          : word == "raw" ? Absorb::kRaw
                                          : Absorb::kB;
    WEFT_TRY_ASSIGN(LowRank mean, MeanOfFactors(input, site, WeightsOf(input.updates), absorb));
    return OwnFactors(std::move(mean));
  }
};

}  // namespace

const Strategy& FedAvgStrategy() {
  static const FedAvg strategy;
  return strategy;
}

}  // namespace weft
