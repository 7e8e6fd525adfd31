#pragma once
// A client's long work, as plain data for the Executor.

#include <string>

#include "common/base/bytes.h"
#include "common/plan/round_plan.h"
#include "common/runtime/executor.h"

namespace weft {

/// Trains one round from the bundle received.
struct TrainJob {
  struct Output {
    UpdateHeader header;  // payload_bytes and payload_sha256 filled in
    Blob payload;         // TensorBlock bytes with an "adapter" section
    Blob local_state;  // optimiser moments (where kept) and data position, for the next round; may
                       // be empty
  };
  RoundPlan plan;  // cohort holds this client's entry only
  ClientId client;
  Blob bundle;
  std::string bundle_sha256;  // as offered, and checked on the way in
  Blob local_state;
};

/// What every update's header says of its job and payload.
[[nodiscard]] UpdateHeader HeaderOf(const TrainJob& job, const Blob& payload);

/// Evaluates a published adapter on the client's validation split.
struct ClientEvaluateJob {
  using Output = EvalReport;
  RunId run;
  RoundId version;
  ClientId client;
  Blob bundle;
  Blob local_state = {};  // of the newest round the client trained: what it keeps for itself
};

}  // namespace weft
