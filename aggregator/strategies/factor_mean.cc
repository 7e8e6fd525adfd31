#include "aggregator/strategies/factor_mean.h"

#include <algorithm>
#include <cmath>

#include "aggregator/strategies/slots.h"
#include "common/base/str.h"

namespace weft {
namespace {

at::Tensor Grown(const at::Tensor& mean, int64_t rank) {
  if (mean.size(0) >= rank) return mean;
  return at::cat({mean, at::zeros({rank - mean.size(0), mean.size(1)}, mean.options())}, 0);
}

// What a client's factors at scale 1, s·B and A, are multiplied with.
struct Scales {
  double on_A = 1;
  double on_B = 1;
};

Scales ScalesFor(Absorb absorb, double own, double of_run) {
  switch (absorb) {
    case Absorb::kB:
      return {};
    case Absorb::kSqrt:
      return {std::sqrt(own), 1 / std::sqrt(own)};
    case Absorb::kRaw:
      return {1, of_run / own};
  }
  WEFT_CHECK(false, "absorb ", static_cast<int>(absorb));
}

}  // namespace

Status CheckFactors(std::string_view strategy, const AdapterSpec& spec) {
  if (spec.method == "lora") return OkStatus();
  return InvalidArgument(Str("[", strategy, "] adapter method \"", spec.method,
                             "\": factors of different methods have no mean; use exact-svd"));
}

Result<LowRank> MeanOfFactors(const MergeInput& input, size_t site,
                              const std::vector<double>& weights, Absorb absorb) {
  const SiteState& old = input.global.adapter.sites[site];
  const auto options = old.Get("A").options().dtype(at::kDouble);
  const int64_t trained = TrainedSlots(input.global, site);
  at::Tensor mean_A_GI = at::zeros({trained, old.site.in}, options);
  at::Tensor mean_B_GO = at::zeros({trained, old.site.out}, options);
  const double of_run = ScalingFor(input.global.init, old.site.path);
  WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const AdapterSpec& spec = input.updates.plan(k).adapter;
    WEFT_TRY(CheckFactors(input.settings.name, spec)
                 .Within(Str("client ", input.updates.plan(k).client)));
    const Scales scales = ScalesFor(absorb, ScalingFor(spec, old.site.path), of_run);
    const LowRank weighted = stack.Of(k);  // p_k s_k B_k and A_k
    const int64_t rank = weighted.A_RI.size(0);
    mean_A_GI = Grown(mean_A_GI, rank);
    mean_B_GO = Grown(mean_B_GO, rank);
    mean_A_GI.narrow(0, 0, rank).add_(weighted.A_RI, weights[k] * scales.on_A);
    mean_B_GO.narrow(0, 0, rank)
        .add_(weighted.B_OR.t(), weights[k] / input.updates.weight(k) * scales.on_B);
  }
  return LowRank{mean_A_GI, mean_B_GO.t()};
}

std::vector<double> SlotOwners(const SiteStack& stack, const std::vector<double>& weights,
                               int64_t slots) {
  std::vector<double> owners(static_cast<size_t>(slots), 0);
  for (size_t k = 0; k < weights.size(); ++k) {
    const int64_t rank = std::min(stack.begins[k + 1] - stack.begins[k], slots);
    for (size_t j = 0; j < static_cast<size_t>(rank); ++j) owners[j] += weights[k];
  }
  return owners;
}

SiteMerge OwnFactors(LowRank factors) {
  SiteMerge merge;
  merge.has_target = false;
  merge.spectrum = Spectrum(factors);
  merge.whole_energy = EnergyFrom(merge.spectrum, 0);
  merge.factors = std::move(factors);
  return merge;
}

}  // namespace weft
