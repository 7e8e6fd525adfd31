#pragma once
// A relay's work on tensors: the global adapter that it was sent becomes a state like an
// aggregator's, to cut from; what its members changed becomes one update of its own.

#include "aggregator/jobs.h"
#include "common/runtime/executor.h"

namespace weft {

/// kInvalidArgument if the bundle is no global adapter on these sites.
[[nodiscard]] Result<AdoptJob::Output> RunAdopt(const AdoptJob& job, JobControl& control);

/// The sum's leading ranks, as many as the spec has; of all of them nothing is lost but the
/// codec's rounding. Robust rules and server optimisers are the aggregator's above: they see this
/// sum as one client's change.
[[nodiscard]] Result<ForwardJob::Output> RunForward(const ForwardJob& job, JobControl& control);

}  // namespace weft
