#pragma once
// The aggregator as a process: settings in, a run folder and a port out. What a test or another
// world needs of it is in MakeAggregatorOptions.

#include <functional>
#include <string>

#include "aggregator/options.h"
#include "common/base/result.h"
#include "common/config/settings.h"
#include "common/runtime/executor.h"
#include "common/runtime/store.h"

namespace weft {

/// The description of [model] base, or of the folder [model] path.
[[nodiscard]] Result<BaseDescription> DescribeBaseOf(const ModelSettings& model);

/// Options of a node whose run lives in `run_dir` (empty: nowhere on disk).
[[nodiscard]] Result<AggregatorOptions> MakeAggregatorOptions(const Settings& settings,
                                                              const std::string& run_dir);

struct AggregatorDaemon {
  Settings settings;
  bool keep_running = false;
  /// Told the endpoint once it is bound; may be empty.
  std::function<void(const std::string& endpoint)> on_bound;
};

/// Runs until the run has ended or a signal stops it. Ok: completed; kCancelled: stopped, started
/// again it goes on.
[[nodiscard]] Status RunAggregatorDaemon(AggregatorDaemon daemon);

}  // namespace weft
