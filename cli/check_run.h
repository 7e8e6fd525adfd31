#pragma once
// What the rule of a single setting cannot know, for programs that start a federation: every name
// stands in its registry, and the settings of a run fit each other.

#include "common/base/status.h"
#include "common/config/settings.h"

namespace weft::cli {

/// Before anything is bound, joined or trained; a run that could only fail later is refused here.
[[nodiscard]] Status CheckRun(const Settings& settings);

}  // namespace weft::cli
