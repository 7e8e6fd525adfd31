#include "aggregator/strategies/frozen_side.h"

#include <algorithm>
#include <set>

#include "aggregator/strategies/factor_mean.h"
#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/server_optimizer.h"
#include "common/adapters/lora.h"
#include "common/adapters/method_spec.h"
#include "common/base/str.h"

namespace weft {
namespace {

// The trained factor, slots first: A [G×I] as it is, B transposed [G×O].
at::Tensor SlotsOfFactor(const LowRank& factors, const std::string& side) {
  return side == "A" ? factors.A_RI : factors.B_OR.t();
}

// Σ c_k pad(θ_k − sent_k) [G×·] in client order.
Result<at::Tensor> WeightedChange(const MergeInput& input, size_t site, const std::string& side,
                                  const at::Tensor& old) {
  at::Tensor change = at::zeros_like(old);
  WEFT_TRY(input.updates.EachStack(site, [&](size_t first, const SiteStack& stack) {
    for (size_t i = 0; i < stack.size(); ++i) {
      const double weight = input.updates.weight(first + i);
      if (weight == 0) continue;
      const LowRank own = stack.Of(i);  // c_k s_k B_k and A_k
      at::Tensor place = change.narrow(0, 0, own.A_RI.size(0));
      place.add_(SlotsOfFactor(own, side), side == "A" ? weight : 1);
      place.sub_(old.narrow(0, 0, own.A_RI.size(0)), weight);
    }
    return OkStatus();
  }));
  return change;
}

// The rule that looks at elements, slot by slot over the clients that have it.
Result<at::Tensor> ElementChange(const MergeInput& input, size_t site, const std::string& side,
                                 const at::Tensor& old) {
  std::vector<at::Tensor> changes;
  std::set<int64_t> bounds;
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const double share = input.updates.weight(k);
    if (share == 0) continue;
    WEFT_TRY_ASSIGN(const LowRank own, input.updates.Factors(k, site));
    const int64_t rank = own.A_RI.size(0);
    changes.push_back((SlotsOfFactor(own, side) - old.narrow(0, 0, rank)) * share);
    bounds.insert(rank);
  }
  at::Tensor change = at::zeros_like(old);
  int64_t first = 0;
  for (const int64_t bound : bounds) {
    std::vector<at::Tensor> owners;
    for (const at::Tensor& own : changes) {
      if (own.size(0) >= bound) owners.push_back(own.narrow(0, first, bound - first));
    }
    change.narrow(0, first, bound - first)
        .copy_(CombineElements(input.settings.robust, at::stack(owners)));
    first = bound;
  }
  return change;
}

}  // namespace

AdapterSpec FrozenSideStrategy::ForRound(const StrategySettings&, int64_t, const AdapterSpec& spec,
                                         uint64_t, uint64_t round) const {
  AdapterSpec own = spec;
  if (spec.method == "lora") SetOption(own, "train", TrainedIn(round));
  return own;
}

Result<SiteMerge> FrozenSideStrategy::MergeSite(const MergeInput& input, const RoundSurvey&,
                                                size_t site) const {
  const SiteState& old = input.global.adapter.sites[site];
  const std::string side = TrainedIn(input.round);
  for (size_t k = 0; k < input.updates.size(); ++k) {
    const ClientPlan& plan = input.updates.plan(k);
    WEFT_TRY(CheckFactors(name(), plan.adapter).Within(Str("client ", plan.client)));
  }
  const LowRank before{old.Get("A").to(at::kDouble), old.Get("B").to(at::kDouble)};
  const at::Tensor own = SlotsOfFactor(before, side);
  const bool elements = LooksAtElements(input.settings.robust);
  WEFT_TRY_ASSIGN(at::Tensor change, elements ? ElementChange(input, site, side, own)
                                              : WeightedChange(input, site, side, own));
  const bool follows = input.settings.optimizer.name != "none" && AnyoneCounts(input.updates);
  std::vector<NamedTensor> memory = MemoryOf(input.global.memory, old.site.path + ":" + side);
  if (follows) change = FollowElements(input.settings.optimizer, change, memory);
  const at::Tensor next = own + change;
  SiteMerge merge =
      OwnFactors(side == "A" ? LowRank{next, before.B_OR} : LowRank{before.A_RI, next.t()});
  merge.memory = follows ? Remembered(input.global.memory, old.site.path, side, memory)
                         : MemoryOf(input.global.memory, old.site.path);
  if (elements || follows) return merge;
  merge.has_target = true;
  WEFT_TRY_ASSIGN(merge.sum, input.updates.Mean(site));
  WEFT_TRY_ASSIGN(const SentMean sent, MeanOfSent(input, site));
  merge.rest = Untrained(old, sent);
  merge.before_truncation = LowRankSum(old.site.out, old.site.in);
  merge.before_truncation.Add(merge.factors);
  return merge;
}

}  // namespace weft
