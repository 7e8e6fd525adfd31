#pragma once
// The honest members by which `weft bench load` measures: one beats often and times the echo, one
// joins over and over and times how long that takes; and those whose coming lets the run begin.
// Functions of child processes.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "cli/bench_federation.h"

namespace weft::cli {

/// When something was asked (seconds of the steady clock) and how long the answer took.
struct LoadSample {
  double at_s = 0;
  double took_s = 0;
};

/// Seconds of the clock that samples are stamped with, the same in all processes.
[[nodiscard]] double LoadClock();

/// Reads the endpoint, joins as client `index`, beats fifty times a second whatever comes back;
/// when the run has ended it reports a sample for each beat that was echoed.
[[nodiscard]] Status RunLoadProbe(const BenchPlan& plan, size_t index, const Pipes& pipes);

/// Reads the endpoint; joins as client `index` and leaves, four times a second, until it is sent a
/// line. Then it reports a sample for each time that it was welcomed, from connect to welcome.
[[nodiscard]] Status RunLoadNewcomer(const BenchPlan& plan, size_t index, const Pipes& pipes);

/// Reads the endpoint, and one more line when the run may begin: then the clients `first` to
/// `first + count - 1` join, and stay until the run has ended.
[[nodiscard]] Status RunLoadGate(const BenchPlan& plan, size_t first, size_t count,
                                 const Pipes& pipes);

/// What a child process reported.
[[nodiscard]] std::vector<LoadSample> ReadSamples(std::string_view report);

}  // namespace weft::cli
