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
  for (size_t k = 0; k < input.updates.size(); ++k) {
    slots = std::max(slots, SiteRank(input.updates.plan(k).adapter, layer));
  }
  WeightedSum A_GI(slots, layer.in);
  WeightedSum B_OG(layer.out, slots);
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const AdapterSpec& spec = input.updates.plan(k).adapter;
    WEFT_TRY(CheckFactors(input.settings.name, spec)
                 .Within(Str("client ", input.updates.plan(k).client)));
    const Scales scales = ScalesFor(absorb, ScalingFor(spec, layer.path), of_run);
    WEFT_TRY_ASSIGN(const PlainFactors own, input.updates.Plain(k, site));
    A_GI.Add(own.factors.A_RI, weights[k] * scales.on_A);
    B_OG.Add(own.factors.B_OR, weights[k] * scales.on_B * own.scale);
  }
  const at::Device device = input.global.adapter.sites[site].Get("A").device();
  return LowRank{A_GI.Take().to(device), B_OG.Take().to(device)};
}

std::vector<double> SlotOwners(const SiteStack& stack, const std::vector<double>& weights,
                               int64_t slots) {
  std::vector<double> owners(static_cast<size_t>(slots), 0);
  AddSlotOwners(stack, weights, owners);
  return owners;
}

void AddSlotOwners(const SiteStack& stack, std::span<const double> weights,
                   std::vector<double>& owners) {
  for (size_t k = 0; k < weights.size(); ++k) {
    const auto rank = static_cast<size_t>(stack.begins[k + 1] - stack.begins[k]);
    for (size_t j = 0; j < std::min(rank, owners.size()); ++j) owners[j] += weights[k];
  }
}

SiteMerge OwnFactors(LowRank factors) {
  SiteMerge merge;
  merge.has_target = false;
  merge.factors = std::move(factors);
  return merge;
}

}  // namespace weft
