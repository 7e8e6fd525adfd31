#pragma once
// The crowd of `weft bench load`: many members in one process, each the real ClientNode with a
// CURVE connection of its own, and the same connections without a member behind them. Functions of
// child processes; they return when the run has ended, or when they are told to.

#include <cstddef>
#include <string>

#include "cli/bench_federation.h"

namespace weft::cli {

/// The clients `first`, `first + 1`, … of the plan.
struct LoadShare {
  size_t first = 0;
  size_t count = 0;
};

/// Reads the endpoint, joins, takes part until the run has ended. Not ok if one of them failed.
[[nodiscard]] Status RunLoadMembers(const BenchPlan& plan, const LoadShare& share,
                                    const Pipes& pipes);

/// Reads the endpoint of a ZmqEcho, connects, says something as often as a member does and once at
/// the start; reports "connected" when everybody was answered, and stays until it is killed.
[[nodiscard]] Status RunBareConnections(const BenchPlan& plan, const LoadShare& share,
                                        const Pipes& pipes);

/// The ZmqEcho that they connect to: reports its endpoint, then its memory in megabytes before
/// anybody came, and after each line it is sent.
[[nodiscard]] Status RunBareServer(const BenchPlan& plan, const Pipes& pipes);

}  // namespace weft::cli
