// The one table of strategies; a new rule is one file and one line here.

#include <array>

#include "aggregator/strategies/rules.h"
#include "common/base/str.h"

namespace weft {

std::span<const Strategy* const> StrategyRegistry() {
  static const std::array strategies = {&ExactSvdStrategy(), &FedAvgStrategy(), &FloraStrategy(),
                                        &NativeStrategy()};
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

Result<std::vector<int64_t>> Strategy::RankPlan(const MergeInput&) const {
  return std::vector<int64_t>();
}

Result<Adapter::Merged> Strategy::MergeWhole(const MergeInput&) const {
  return Internal(Str("[", name(), "] merges site by site"));
}

Status CheckStrategySettings(const StrategySettings& settings, const LocalTraining& training) {
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.name));
  WEFT_TRY(strategy->Check(settings));
  if (training.keep_optimizer && strategy->name() != "fedavg") {
    return InvalidArgument(Str("[", settings.name,
                               "] train.keep-optimizer is set, but this rule gives every round a "
                               "new basis, in which AdamW's moments mean nothing; unset it or use "
                               "fedavg"));
  }
  return OkStatus();
}

}  // namespace weft
