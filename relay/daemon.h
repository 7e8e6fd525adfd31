#pragma once
// The relay as a process: settings in, a run folder, a port for its members and a link above.

#include <functional>
#include <string>

#include "common/base/result.h"
#include "common/config/settings.h"

namespace weft {

struct RelayDaemon {
  Settings settings;
  /// Told the endpoint for members once it is bound; may be empty.
  std::function<void(const std::string& endpoint)> on_bound = {};
};

/// Runs until the run above has ended or a signal stops it. Ok: completed; kCancelled: stopped,
/// started again it goes on. `refused`: the aggregator above does not take it.
[[nodiscard]] Status RunRelayDaemon(const RelayDaemon& daemon, bool* refused);

}  // namespace weft
