#include "aggregator/strategies/factor_mean.h"

#include <algorithm>
#include <cmath>

#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/weighted_sum.h"
#include "common/base/str.h"

namespace weft {
namespace {

// What a client's A and s·B are multiplied with.
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
  const LinearSite& layer = input.global.adapter.sites[site].site;
  const double of_run = ScalingFor(input.global.init, layer.path);
  int64_t slots = TrainedSlots(input.global, site);
  std::vector<WeightedMatrix> As;
  std::vector<WeightedMatrix> Bs;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const AdapterSpec& spec = input.updates.plan(k).adapter;
    WEFT_TRY(CheckFactors(input.settings.name, spec)
                 .Within(Str("client ", input.updates.plan(k).client)));
    const Scales scales = ScalesFor(absorb, ScalingFor(spec, layer.path), of_run);
    WEFT_TRY_ASSIGN(PlainFactors own, input.updates.Plain(k, site));
    slots = std::max(slots, own.factors.A_RI.size(0));
    As.push_back({std::move(own.factors.A_RI), weights[k] * scales.on_A});
    Bs.push_back({std::move(own.factors.B_OR), weights[k] * scales.on_B * own.scale});
  }
  const at::Device device = input.global.adapter.sites[site].Get("A").device();
  return LowRank{WeightedSum(As, slots, layer.in).to(device),
                 WeightedSum(Bs, layer.out, slots).to(device)};
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
