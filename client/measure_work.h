#pragma once
// The work behind a TrainJob whose round measures (Laplace-LoRA): nothing is trained, the update is
// the statistics of the adapter in the bundle over the site's training rows.

#include "client/jobs.h"
#include "client/site.h"
#include "common/runtime/executor.h"

namespace weft {

/// kInvalidArgument where the adapter names no classes; kFailedPrecondition for a bundle without an
/// adapter, or with a change of the base model, which the statistics would not know of.
[[nodiscard]] Result<TrainJob::Output> MeasureRound(Site& site, const TrainJob& job,
                                                    JobControl& control);

}  // namespace weft
