#pragma once
// Exit codes: 0 completed, 1 failed, 2 usage, 3 refused by the aggregator (wrong
// key, other base model …), 4 stopped on request. 70: a bug of ours.

#include <functional>

#include "common/base/status.h"

namespace weft::cli {

inline constexpr int kExitCompleted = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;
inline constexpr int kExitRefused = 3;
inline constexpr int kExitStopped = 4;

/// kCancelled: stopped. Refusals have no code of their own; `refused` says whether it was one.
[[nodiscard]] int ExitCodeOf(const Status& outcome, bool refused);

/// Runs a daemon's body; prints its failure to stderr as "program: error: …".
[[nodiscard]] int RunDaemon(const char* program, const std::function<Status(bool* refused)>& body);

}  // namespace weft::cli
