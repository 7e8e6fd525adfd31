#include "aggregator/strategies/foreign_settings.h"

#include "common/base/str.h"

namespace weft {
namespace {

Status Foreign(const StrategySettings& settings, std::string_view key, std::string_view owner) {
  return InvalidArgument(Str("[", settings.name, "] strategy.", key, " is set, but only ", owner,
                             " knows it; unset it or use ", owner));
}

}  // namespace

Status CheckNoSvdSettings(const StrategySettings& settings) {
  const StrategySettings defaults;
  if (settings.global_rank != defaults.global_rank) {
    return Foreign(settings, "global-rank", "exact-svd");
  }
  if (settings.energy != defaults.energy) return Foreign(settings, "energy", "exact-svd");
  if (settings.carry != defaults.carry) return Foreign(settings, "carry", "exact-svd");
  if (settings.slots != defaults.slots) return Foreign(settings, "slots", "exact-svd");
  if (settings.split != defaults.split) return Foreign(settings, "split", "exact-svd");
  return OkStatus();
}

Status CheckNoStackBudget(const StrategySettings& settings) {
  if (settings.stack_budget_mb == StrategySettings().stack_budget_mb) return OkStatus();
  return Foreign(settings, "stack-budget-mb", "flora");
}

}  // namespace weft
