// flora: the clients' blocks side by side (Wang et al. 2024), exact for any mix of ranks. What has
// been learned is one frozen adapter F beside the base, which stays as it is; every round clients
// train a fresh adapter on top, and F grows by [B_k], [p_k s_k A_k].
//
// F is recompressed by QR and SVD when its rank would pass min(in, out), which loses nothing but
// float32 rounding, and when it would pass the byte budget, which may cut.
//
// Shape legend: O out, I in, R rank.

#include <algorithm>
#include <numeric>

#include "aggregator/strategies/frozen_stack.h"
#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/rules.h"
#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/target.h"
#include "common/adapters/adapter.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr std::string_view kKeys[] = {"stack-budget-mb"};
constexpr int64_t kAppend = -1;  // in a rank plan: no recompression needed

int64_t RankAboveNoise(const at::Tensor& spectrum) {
  return spectrum.size(0) == 0 ? 0 : NumericalRank(spectrum, spectrum[0].item<double>());
}

bool IsZero(const SiteState& site) { return !site.Get("B").any().item<bool>(); }

class Flora final : public Strategy {
 public:
  std::string_view name() const override { return "flora"; }

  StrategyTraits traits() const override {
    return {.mixed_ranks = true,
            .mixed_methods = true,
            .gauge_free = true,
            .exact = true,
            .any_weights = true};
  }
  std::span<const std::string_view> keys() const override { return kKeys; }

  // F = 0 as one empty slot a site: readers need no special case for an adapter without factors.
  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t) const override {
    GlobalState global{std::string(name()), spec, {}};
    for (const LinearSite& site : sites) {
      global.adapter.sites.push_back({site,
                                      {{"A", at::zeros({1, site.in}, at::kFloat)},
                                       {"B", at::zeros({site.out, 1}, at::kFloat)}}});
    }
    global.adapter.spec = UnitSpec(spec, global.adapter.sites);
    return global;
  }

  Result<AdapterBundle> Cut(const GlobalState& global, const ClientPlan&) const override {
    return AdapterBundle{std::nullopt, global.adapter};
  }

  Result<std::optional<LowRank>> Sent(const GlobalState&, size_t,
                                      const ClientPlan&) const override {
    return std::optional<LowRank>();
  }

  Result<RoundSurvey> Survey(const MergeInput& input) const override {
    const std::vector<SiteState>& sites = input.global.adapter.sites;
    RoundSurvey survey{.ranks = std::vector<int64_t>(sites.size(), kAppend)};
    // Only a sum of the clients' own blocks can be appended as these blocks.
    const bool own_blocks =
        !LooksAtElements(input.settings.robust) && input.settings.optimizer.name == "none";
    double bytes = 0;
    for (size_t i = 0; i < sites.size(); ++i) {
      const LinearSite& site = sites[i].site;
      const int64_t full = std::min(site.in, site.out);
      WEFT_TRY_ASSIGN(const int64_t stacked, StackedRank(input, i));
      if (stacked > full || !own_blocks) survey.ranks[i] = full;
      bytes += static_cast<double>(std::min(stacked, full) * (site.in + site.out) * 4);
    }
    const double budget = static_cast<double>(input.settings.stack_budget_mb) * 1e6;
    if (bytes <= budget) return survey;
    WEFT_TRY_ASSIGN(survey.ranks, WithinBudget(input, budget));
    return survey;
  }

  Result<SiteMerge> MergeSite(const MergeInput& input, const RoundSurvey& survey,
                              size_t site) const override {
    const SiteState& old = input.global.adapter.sites[site];
    WEFT_TRY_ASSIGN(SiteTarget target, GrowthOf(input, site));
    SiteMerge merge;
    merge.adds_to_old = true;
    merge.sum = std::move(target.sum);
    merge.sum_is_mean = target.sum_is_mean;
    merge.rest = std::move(target.rest);
    merge.memory = std::move(target.memory);
    const Recompressed growth =
        Recompress(merge.sum, [](const at::Tensor& spectrum) { return spectrum.size(0); });
    merge.spectrum = growth.spectrum;
    merge.before_truncation = LowRankSum(old.site.out, old.site.in);
    if (survey.ranks[site] == kAppend) {
      merge.frame = growth.frame;
      if (!merge.frame) merge.before_truncation.Add(growth.BeforeCutting());
      merge.whole_energy = EnergyFrom(growth.spectrum, 0);
      merge.kept = IsZero(old) ? 0 : old.Get("A").size(0);
      WEFT_TRY_ASSIGN(merge.factors, Grown(input, site));
      return merge;
    }
    LowRankSum whole = merge.sum;
    whole.Add({old.Get("A"), old.Get("B")});
    const Recompressed svd = Recompress(whole, [&](const at::Tensor& spectrum) {
      return std::clamp<int64_t>(RankAboveNoise(spectrum), 1, survey.ranks[site]);
    });
    merge.factors = {svd.V_IQ.t(), svd.U_OQ * svd.S_Q};
    merge.before_truncation.Add(svd.BeforeCutting());
    merge.before_truncation.Add({old.Get("A"), old.Get("B")}, -1);
    merge.cut_energy = EnergyFrom(svd.spectrum, svd.S_Q.size(0));
    merge.whole_energy = EnergyFrom(svd.spectrum, 0);
    return merge;
  }

 private:
  static Result<int64_t> StackedRank(const MergeInput& input, size_t i) {
    const SiteState& old = input.global.adapter.sites[i];
    int64_t rank = IsZero(old) ? 0 : old.Get("A").size(0);
    for (size_t k = 0; k < input.updates.size(); ++k) {
      if (input.updates.weight(k) == 0) continue;  // a robust rule left it out
      const AdapterSpec& spec = input.updates.plan(k).adapter;
      WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
      rank += method->FactorRank(spec, old.site);
    }
    return rank;
  }

  // Old slots, then [B_k], [p_k s_k A_k] in client order. The whole weight goes into A, so that B_k
  // stays what the client sent, to the bit.
  static Result<LowRank> Grown(const MergeInput& input, size_t site) {
    const SiteState& old = input.global.adapter.sites[site];
    const LowRank before{old.Get("A").to(at::kDouble), old.Get("B").to(at::kDouble)};
    std::vector<LowRank> blocks;
    if (!IsZero(old)) blocks.push_back(before);
    for (size_t k = 0; k < input.updates.size(); ++k) {
      if (input.updates.weight(k) == 0) continue;
      const AdapterSpec& spec = input.updates.plan(k).adapter;
      const double scaling = spec.method == "lora" ? ScalingFor(spec, old.site.path) : 1.0;
      WEFT_TRY_ASSIGN(const LowRank factors, input.updates.Factors(k, site));
      blocks.push_back(
          {factors.A_RI * (input.updates.weight(k) * scaling), factors.B_OR / scaling});
    }
    return blocks.empty() ? before : SideBySide(blocks);
  }

  // Which singular values of all sites together are worth their bytes: the largest σ² per byte
  // first, until the budget is full. Every site keeps at least one.
  static Result<std::vector<int64_t>> WithinBudget(const MergeInput& input, double budget) {
    struct Slot {
      double worth;
      size_t site;
    };
    const std::vector<SiteState>& sites = input.global.adapter.sites;
    std::vector<Slot> slots;
    std::vector<int64_t> plan(sites.size(), 1);
    double bytes = 0;
    const auto slot_bytes = [&](size_t i) {
      return static_cast<double>((sites[i].site.in + sites[i].site.out) * 4);
    };
    for (size_t i = 0; i < sites.size(); ++i) {
      WEFT_TRY_ASSIGN(const SiteTarget growth, GrowthOf(input, i));
      LowRankSum whole = growth.sum;
      whole.Add({sites[i].Get("A"), sites[i].Get("B")});
      const at::Tensor spectrum = Recompress(whole, [](const at::Tensor&) { return 0; }).spectrum;
      for (int64_t j = 1; j < RankAboveNoise(spectrum); ++j) {
        slots.push_back({spectrum[j].square().item<double>() / slot_bytes(i), i});
      }
      bytes += slot_bytes(i);
    }
    std::stable_sort(slots.begin(), slots.end(),
                     [](const Slot& a, const Slot& b) { return a.worth > b.worth; });
    for (const Slot& slot : slots) {
      bytes += slot_bytes(slot.site);
      if (bytes > budget) break;
      ++plan[slot.site];
    }
    return plan;
  }
};

}  // namespace

const Strategy& FloraStrategy() {
  static const Flora strategy;
  return strategy;
}

}  // namespace weft
