#pragma once
// What an aggregator tells those who watch it: the run as its ledger says, in Prometheus' text
// format, and whether the process is well. Pure functions.

#include <cstdint>
#include <string>

#include "common/runtime/run_view.h"

namespace weft {

/// How the process is.
struct Pulse {
  double loop_age_s = 0;  // since its loop last moved
  bool paused = false;    // its disk is full, and it waits
};

/// Sums over rounds.
struct RunTotals {
  uint64_t accepted = 0;
  uint64_t refused = 0;
  uint64_t late = 0;
  uint64_t dropped = 0;
  uint64_t missed = 0;
  uint64_t bytes_up = 0;
  uint64_t bytes_down = 0;

  void Add(const RoundRow& round);
};

/// One gauge or counter a line group, names beginning with "weft_". `older`: of the rounds that the
/// view no longer has.
[[nodiscard]] std::string MetricsPage(const RunView& view, const RunTotals& older,
                                      const Pulse& pulse);

/// Ok, or kUnavailable saying what is wrong.
[[nodiscard]] Status Health(const Pulse& pulse);

}  // namespace weft
