#pragma once
// Failpoints: named places between hearing of a round and publishing it at which a test has the
// process die as if by kill −9. Where none is armed, which is everywhere but in such tests, one
// costs a load and a branch.

#include <atomic>
#include <span>
#include <string_view>

#include "common/base/status.h"

namespace weft {

/// Where a process is. The names are in failpoint.cc.
enum class Failpoint : int {
  // The aggregator, from opening a round to having published it.
  kRoundRecorded,
  kOfferSent,
  kUpdateOffered,
  kChunkCame,
  kChunkWritten,
  kUpdateSealed,
  kUpdateAdmitted,
  kUpdateRecorded,
  kVerdictSent,
  kRoundClosed,
  kRoundMerged,
  kStateWritten,
  kAdapterExported,
  kVersionRecorded,
  kSpoolRemoved,
  kEvaluationRecorded,
  // A client, from hearing of a round to forgetting it.
  kOfferHeard,
  kBundlePulled,
  kUpdateTrained,
  kUpdateKept,
  kUpdateOfferSent,
  kChunksSent,
  kVerdictHeard,
  kUpdateForgotten,
  // A relay passes those of an aggregator and of a client, and this one.
  kUpdateForwarded,
  // Their disks.
  kBeforeCommit,
  kAfterCommit,
  kBeforeRename,
  kAfterRename,
};

struct FailpointInfo {
  Failpoint point;
  std::string_view name;     // "aggregator.update-sealed"
  std::string_view process;  // "aggregator", "client", "relay" or "all"
  std::string_view what;
};

/// All there are, in the order of the enumeration.
[[nodiscard]] std::span<const FailpointInfo> Failpoints();

/// Does that process pass the point? A relay is an aggregator and a client.
[[nodiscard]] bool Passes(std::string_view process, const FailpointInfo& point);

/// Has this process die at the `nth` pass of "NAME" or "NAME:N" (N from 1, else 1). kNotFound for
/// an unknown name, kInvalidArgument for one of the other process.
[[nodiscard]] Status ArmFailpoint(std::string_view text, std::string_view process);

namespace internal {
inline std::atomic<int> armed_failpoint{-1};
void PassArmed();
}  // namespace internal

/// The process is here.
inline void Pass(Failpoint point) {
  if (internal::armed_failpoint.load(std::memory_order_relaxed) == static_cast<int>(point))
      [[unlikely]] {
    internal::PassArmed();
  }
}

}  // namespace weft
