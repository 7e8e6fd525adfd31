// hetlora: the zero-padded mean of factors, each client weighed by the norm of its update, not by
// its number of examples (HetLoRA, Cho et al. 2024): w_k = ‖ΔW_k‖_F / Σ_j ‖ΔW_j‖_F, α/r counted.
// Norms are of the whole model, or of each layer by itself; the paper leaves that open.

#include <cmath>

#include "aggregator/strategies/factor_strategy.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"norm-scope"};

// ‖ΔW_k‖_F² of one site.
Result<std::vector<double>> Squares(const MergeInput& input, size_t site) {
  WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
  std::vector<double> squares;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const double weight = input.updates.weight(k);
    squares.push_back(GramSquare(stack.Of(k)) / (weight * weight));
  }
  return squares;
}

// Their roots, divided by their sum; the clients' own weights where all updates are zero.
std::vector<double> NormWeights(std::vector<double> squares, const UpdateSource& updates) {
  double sum = 0;
  for (double& square : squares) sum += square = std::sqrt(square);
  if (sum == 0) return WeightsOf(updates);
  for (double& norm : squares) norm /= sum;
  return squares;
}

class HetLora final : public FactorStrategy {
 public:
  std::string_view name() const override { return "hetlora"; }
  StrategyTraits traits() const override {
    return {.mixed_ranks = true, .weights_by_size = false, .keeps_basis = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  Result<RoundSurvey> Survey(const MergeInput& input) const override {
    RoundSurvey survey;
    if (input.settings.norm_scope == "layer") return survey;
    std::vector<double> sums(input.updates.size(), 0);
    for (size_t site = 0; site < input.global.adapter.sites.size(); ++site) {
      WEFT_TRY_ASSIGN(const std::vector<double> squares, Squares(input, site));
      for (size_t k = 0; k < sums.size(); ++k) sums[k] += squares[k];
    }
    survey.weights = NormWeights(std::move(sums), input.updates);
    return survey;
  }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey& survey,
                              size_t site) const override {
    std::vector<double> weights = survey.weights;
    if (weights.empty()) {
      WEFT_TRY_ASSIGN(std::vector<double> squares, Squares(input, site));
      weights = NormWeights(std::move(squares), input.updates);
    }
    WEFT_TRY_ASSIGN(LowRank mean, MeanOfFactors(input, site, weights));
    return OwnFactors(std::move(mean));
  }
};

}  // namespace

const Strategy& HetLoraStrategy() {
  static const HetLora strategy;
  return strategy;
}

}  // namespace weft
