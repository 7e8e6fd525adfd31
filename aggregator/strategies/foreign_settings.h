#pragma once
// CheckForeign: settings that another rule knows and this one would silently ignore.

#include "common/base/result.h"
#include "common/config/settings.h"

namespace weft {

/// kInvalidArgument if a setting of exact-svd differs from its default.
[[nodiscard]] Status CheckNoSvdSettings(const StrategySettings& settings);

/// kInvalidArgument if flora's stack budget differs from its default.
[[nodiscard]] Status CheckNoStackBudget(const StrategySettings& settings);

}  // namespace weft
