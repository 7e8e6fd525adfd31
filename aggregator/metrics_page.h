#pragma once
// What an aggregator tells those who watch it: the run as its ledger says, in Prometheus' text
// format, and whether the process is well. Pure functions.

#include <string>

#include "common/runtime/run_view.h"

namespace weft {

/// How the process is.
struct Pulse {
  double loop_age_s = 0;  // since its loop last moved
  bool paused = false;    // its disk is full, and it waits
};

/// One gauge or counter a line group, names beginning with "weft_".
[[nodiscard]] std::string MetricsPage(const RunView& view, const Pulse& pulse);

/// Ok, or kUnavailable saying what is wrong.
[[nodiscard]] Status Health(const Pulse& pulse);

}  // namespace weft
