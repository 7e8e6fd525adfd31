#pragma once
// The functions behind the jobs of a round that measures (Laplace-LoRA): admission of one client's
// statistics, and the posterior of all of them together.

#include "aggregator/jobs.h"

namespace weft {

/// AdmitJob of a round that measures: refuses what is no statistics of the adapter in the bundle.
[[nodiscard]] Result<AdmitJob::Output> AdmitStatistics(const AdmitJob& job);

/// Holds the statistics of all clients in memory at once: roots are then cut once.
[[nodiscard]] Result<FitJob::Output> RunFit(const FitJob& job, JobControl& control);

/// The most bytes that statistics of these layers can have, whatever the adapter's rank.
[[nodiscard]] uint64_t StatisticsBytesMax(const std::vector<LinearSite>& sites);

}  // namespace weft
