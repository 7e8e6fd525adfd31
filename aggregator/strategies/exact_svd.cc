// exact-svd: the exact mean of the clients' products, cut to the global rank by SVD, with the tail
// that low-rank clients were not sent carried over (spec/aggregation.md 4). Without the carry it is
// FlexLoRA (Bai et al. 2024).
//
// Shape legend: O out, I in, R rank, Q number of singular values.

#include <algorithm>

#include "aggregator/strategies/foreign_settings.h"
#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slots.h"
#include "common/adapters/adapter.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

// Below this share of the largest singular value a slot is as good as empty. Splitting √σ on both
// sides would leave it without a gradient on either.
constexpr double kEmptySlot = 1e-6;

// B = U·S, A = Vᵀ ("left"), or √S on both sides ("balanced").
LowRank Split(const Recompressed& svd, const std::string& split) {
  if (split == "left" || svd.S_Q.size(0) == 0) return {svd.V_IQ.t(), svd.U_OQ * svd.S_Q};
  const at::Tensor root = svd.S_Q.sqrt();
  const at::Tensor empty = svd.S_Q <= kEmptySlot * svd.S_Q[0];
  const at::Tensor on_A = at::where(empty, at::ones_like(root), root);
  const at::Tensor on_B = at::where(empty, svd.S_Q, root);
  return {(svd.V_IQ * on_A).t(), svd.U_OQ * on_B};
}

class ExactSvd final : public Strategy {
 public:
  std::string_view name() const override { return "exact-svd"; }

  StrategyTraits traits() const override {
    return {
        .needs_each_update = true, .mixed_ranks = true, .mixed_methods = true, .gauge_free = true};
  }

  Status Check(const StrategySettings& settings) const override {
    if (settings.global_rank < 0 || settings.global_rank > limits::kRankMax) {
      return InvalidArgument(Str("[exact-svd] strategy.global-rank is ", settings.global_rank,
                                 ", wanted 0 (the largest rank of any client) to ",
                                 limits::kRankMax));
    }
    if (!(settings.energy >= 0 && settings.energy <= 1)) {
      return InvalidArgument(Str("[exact-svd] strategy.energy is ", settings.energy,
                                 ", wanted a share from 0 (off) to 1"));
    }
    if (settings.slots != "top") {
      return InvalidArgument(
          Str("[exact-svd] strategy.slots is \"", settings.slots, "\", wanted \"top\""));
    }
    if (settings.split != "left" && settings.split != "balanced") {
      return InvalidArgument(Str("[exact-svd] strategy.split is \"", settings.split,
                                 "\", wanted \"left\" or \"balanced\""));
    }
    return CheckNoStackBudget(settings);
  }

  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override {
    return InitSlots(name(), spec, sites, seed);
  }

  Result<AdapterBundle> Cut(const GlobalState& global, const ClientPlan& client) const override {
    return CutSlots(global, client);
  }

  Result<std::optional<LowRank>> Sent(const GlobalState& global, size_t site,
                                      const ClientPlan& client) const override {
    return SentSlots(global, site, client);
  }

  // G' = G + Σ p_k (s_k B_k A_k − sent_k). For p adding up to 1 that is the mean of the products
  // and one more block: the part of G that nobody was sent.
  Result<SiteMerge> MergeSite(const MergeInput& input, std::span<const int64_t>,
                              size_t site) const override {
    const SiteState& old = input.global.adapter.sites[site];
    SiteMerge merge;
    WEFT_TRY_ASSIGN(merge.ideal, IdealMean(input, site));
    merge.rest = LowRankSum(old.site.out, old.site.in);
    if (input.settings.carry) {
      WEFT_TRY_ASSIGN(const SentMean sent, MeanOfSent(input, site));
      merge.rest = Untrained(old, sent);
    }
    LowRankSum target = merge.ideal;
    target.Add(merge.rest);
    const int64_t cap = SiteRank(input.global.init, old.site);
    const Recompressed svd = Recompress(target, [&](const at::Tensor& spectrum) {
      return input.settings.energy > 0
                 ? std::min(cap, RankOfEnergy(spectrum, input.settings.energy))
                 : cap;
    });
    merge.factors = Split(svd, input.settings.split);
    merge.before_truncation = LowRankSum(old.site.out, old.site.in);
    merge.before_truncation.Add(svd.before_cutting);
    merge.spectrum = svd.spectrum;
    merge.cut_energy = EnergyFrom(svd.spectrum, svd.S_Q.size(0));
    merge.whole_energy = EnergyFrom(svd.spectrum, 0);
    return merge;
  }
};

}  // namespace

const Strategy& ExactSvdStrategy() {
  static const ExactSvd strategy;
  return strategy;
}

}  // namespace weft
