// The one table of strategies; a new rule is one file and one line here.

#include <algorithm>
#include <array>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/rules.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

// Every key of [strategy] that belongs to some rules only, and whether it stands at its default.
std::vector<std::pair<std::string_view, bool>> KeysAtDefault(const StrategySettings& s) {
  const StrategySettings plain;
  return {{"global-rank", s.global_rank == plain.global_rank},
          {"energy", s.energy == plain.energy},
          {"carry", s.carry == plain.carry},
          {"slots", s.slots == plain.slots},
          {"tail-on-client", s.tail_on_client == plain.tail_on_client},
          {"split", s.split == plain.split},
          {"stack-budget-mb", s.stack_budget_mb == plain.stack_budget_mb},
          {"absorb", s.absorb == plain.absorb},
          {"norm-scope", s.norm_scope == plain.norm_scope},
          {"ridge", s.ridge == plain.ridge},
          {"soften", s.soften == plain.soften},
          {"oversample", s.oversample == plain.oversample},
          {"period", s.period == plain.period}};
}

bool Knows(const Strategy& strategy, std::string_view key) {
  const std::span<const std::string_view> keys = strategy.keys();
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

std::string WhoKnows(std::string_view key) {
  std::string names;
  for (const Strategy* strategy : StrategyRegistry()) {
    if (Knows(*strategy, key)) names += Str(names.empty() ? "" : ", ", strategy->name());
  }
  return names;
}

// A setting that the rule would silently ignore.
Status CheckForeignKeys(const Strategy& strategy, const StrategySettings& settings) {
  for (const auto& [key, at_default] : KeysAtDefault(settings)) {
    if (at_default || Knows(strategy, key)) continue;
    return InvalidArgument(
        Str("[", strategy.name(), "] strategy.", key,
            " is set, but this rule does not know it; unset it or use one of: ", WhoKnows(key)));
  }
  return OkStatus();
}

Status CheckRanges(const StrategySettings& settings) {
  const auto check = [&](bool good, std::string_view key, const auto& got,
                         std::string_view wanted) {
    if (good) return OkStatus();
    return InvalidArgument(
        Str("[", settings.name, "] strategy.", key, " is ", got, ", wanted ", wanted));
  };
  const auto one_of = [](const std::string& word, std::initializer_list<std::string_view> words) {
    return std::find(words.begin(), words.end(), word) != words.end();
  };
  const auto& s = settings;
  WEFT_TRY(check(s.global_rank >= 0 && s.global_rank <= limits::kRankMax, "global-rank",
                 s.global_rank, Str("0 (the largest rank of any client) to ", limits::kRankMax)));
  WEFT_TRY(check(s.energy >= 0 && s.energy <= 1, "energy", s.energy, "a share from 0 (off) to 1"));
  WEFT_TRY(check(one_of(s.slots, {"auto", "top", "random"}), "slots", Str('"', s.slots, '"'),
                 "\"auto\", \"top\" or \"random\""));
  WEFT_TRY(check(one_of(s.split, {"left", "balanced"}), "split", Str('"', s.split, '"'),
                 "\"left\" or \"balanced\""));
  WEFT_TRY(check(s.stack_budget_mb >= 1, "stack-budget-mb", s.stack_budget_mb, "at least 1"));
  WEFT_TRY(check(one_of(s.absorb, {"B", "sqrt", "raw"}), "absorb", Str('"', s.absorb, '"'),
                 "\"B\", \"sqrt\" or \"raw\""));
  WEFT_TRY(check(one_of(s.norm_scope, {"model", "layer"}), "norm-scope",
                 Str('"', s.norm_scope, '"'), "\"model\" or \"layer\""));
  WEFT_TRY(check(s.ridge > 0 && std::isfinite(s.ridge), "ridge", s.ridge, "more than 0"));
  WEFT_TRY(check(s.soften >= 0 && s.soften <= 1, "soften", s.soften, "a share from 0 to 1"));
  WEFT_TRY(check(s.oversample >= 0 && s.oversample <= limits::kRankMax, "oversample", s.oversample,
                 Str("0 to ", limits::kRankMax)));
  return check(s.period >= 1, "period", s.period, "at least 1");
}

}  // namespace

std::span<const Strategy* const> StrategyRegistry() {
  static const std::array strategies = {
      &ExactSvdStrategy(),    &FedAskStrategy(), &FedAvgStrategy(),  &FedExStrategy(),
      &FedMomentumStrategy(), &FedRotStrategy(), &FedSbStrategy(),   &FedSvdStrategy(),
      &FfaStrategy(),         &FloraStrategy(),  &FloristStrategy(), &HetLoraStrategy(),
      &LoraFairStrategy(),    &NativeStrategy(), &RaFloraStrategy(), &RblaStrategy(),
      &RoLoraStrategy()};
  return strategies;
}

Result<const Strategy*> FindStrategy(std::string_view name) {
  std::string known;
  for (const Strategy* strategy : StrategyRegistry()) {
    if (strategy->name() == name) return strategy;
    known += Str(known.empty() ? "" : ", ", strategy->name());
  }
  return NotFound(Str("[strategy] \"", name, "\" is unknown; known: ", known));
}

Status Strategy::Check(const StrategySettings&) const { return OkStatus(); }

AdapterSpec Strategy::ForRound(const StrategySettings&, int64_t, const AdapterSpec& spec, uint64_t,
                               uint64_t) const {
  return spec;
}

Result<RoundSurvey> Strategy::Survey(const MergeInput&) const { return RoundSurvey(); }

Result<Adapter::Merged> Strategy::MergeWhole(const MergeInput&) const {
  return Internal(Str("[", name(), "] merges site by site"));
}

Status CheckStrategySettings(const StrategySettings& settings, const LocalTraining& training) {
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.name));
  WEFT_TRY(CheckForeignKeys(*strategy, settings));
  WEFT_TRY(CheckRanges(settings));
  WEFT_TRY(strategy->Check(settings));
  WEFT_TRY(CheckSteps(*strategy, settings));
  if (training.keep_optimizer && !strategy->traits().keeps_basis) {
    return InvalidArgument(Str("[", settings.name,
                               "] train.keep-optimizer is set, but this rule gives every round a "
                               "new basis, in which AdamW's moments mean nothing; unset it or use "
                               "fedavg"));
  }
  return OkStatus();
}

Status CheckStaleness(const StrategySettings& settings, const CohortSettings& cohort) {
  if (cohort.max_staleness == 0) return OkStatus();
  const auto counts_late = [](const Strategy& strategy) {
    const StrategyTraits traits = strategy.traits();
    return traits.any_weights && traits.gauge_free;
  };
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.name));
  if (counts_late(*strategy) && settings.carry) return OkStatus();
  std::string able;
  for (const Strategy* each : StrategyRegistry()) {
    if (counts_late(*each)) able += Str(able.empty() ? "" : ", ", each->name());
  }
  return InvalidArgument(
      Str("[cohort] max-staleness is ", cohort.max_staleness, ", but strategy ", settings.name,
          settings.carry ? "" : " without carry",
          " merges what clients hold, and what they hold of an older version means nothing in this "
          "one; set it to 0, or use one of: ",
          able));
}

}  // namespace weft
