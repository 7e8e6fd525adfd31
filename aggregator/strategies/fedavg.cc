// fedavg: the mean of the factors (FedIT, Zhang et al. 2024), the scaling absorbed into B and ranks
// padded with zeros. Its product is not the mean of the products: the certificate's
// error_to_ideal says by how much.
//
// Shape legend: O out, I in, R a client's rank, G the largest rank.

#include <algorithm>

#include "aggregator/strategies/foreign_settings.h"
#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slots.h"
#include "common/base/str.h"

namespace weft {
namespace {

class FedAvg final : public Strategy {
 public:
  std::string_view name() const override { return "fedavg"; }

  StrategyTraits traits() const override {
    return {.needs_each_update = false,
            .mixed_ranks = true,
            .mixed_methods = false,
            .gauge_free = false};
  }

  Status Check(const StrategySettings& settings) const override {
    WEFT_TRY(CheckNoSvdSettings(settings));
    return CheckNoStackBudget(settings);
  }

  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override {
    if (spec.method != "lora") {
      return InvalidArgument(Str("[fedavg] adapter method \"", spec.method,
                                 "\": factors of different methods have no mean; use exact-svd"));
    }
    return InitSlots(name(), spec, sites, seed);
  }

  Result<AdapterBundle> Cut(const GlobalState& global, const ClientPlan& client) const override {
    return CutSlots(global, client);
  }

  Result<std::optional<LowRank>> Sent(const GlobalState& global, size_t site,
                                      const ClientPlan& client) const override {
    return SentSlots(global, site, client);
  }

  Result<SiteMerge> MergeSite(const MergeInput& input, std::span<const int64_t>,
                              size_t site) const override {
    SiteMerge merge;
    merge.aims_at_ideal = false;
    WEFT_TRY_ASSIGN(merge.ideal, IdealMean(input, site));
    WEFT_TRY_ASSIGN(merge.factors, MeanOfFactors(input, site));
    merge.spectrum = Spectrum(merge.factors);
    merge.whole_energy = EnergyFrom(merge.spectrum, 0);
    return merge;
  }

 private:
  // Ā = Σ p_k pad(A_k), B̄ = Σ p_k s_k pad(B_k).
  static Result<LowRank> MeanOfFactors(const MergeInput& input, size_t site) {
    const SiteState& old = input.global.adapter.sites[site];
    const auto grown = [](const at::Tensor& mean, int64_t rank) {
      if (mean.size(0) >= rank) return mean;
      return at::cat({mean, at::zeros({rank - mean.size(0), mean.size(1)}, mean.options())}, 0);
    };
    const auto options = old.Get("A").options().dtype(at::kDouble);
    at::Tensor mean_A_GI = at::zeros(old.Get("A").sizes(), options);
    at::Tensor mean_B_GO = at::zeros(old.Get("B").t().sizes(), options);
    WEFT_TRY_ASSIGN(const SiteStack stack, input.updates.Stack(site));
    for (size_t k = 0; k < input.updates.size(); ++k) {
      const ClientPlan& client = input.updates.plan(k);
      if (client.adapter.method != "lora") {
        return InvalidArgument(Str("[fedavg] client ", client.client, ": method \"",
                                   client.adapter.method, "\", wanted lora; use exact-svd"));
      }
      const LowRank weighted = stack.Of(k);
      const int64_t rank = weighted.A_RI.size(0);
      mean_A_GI = grown(mean_A_GI, rank);
      mean_B_GO = grown(mean_B_GO, rank);
      mean_A_GI.narrow(0, 0, rank).add_(weighted.A_RI, input.updates.weight(k));
      mean_B_GO.narrow(0, 0, rank).add_(weighted.B_OR.t());
    }
    return LowRank{mean_A_GI, mean_B_GO.t()};
  }
};

}  // namespace

const Strategy& FedAvgStrategy() {
  static const FedAvg strategy;
  return strategy;
}

}  // namespace weft
