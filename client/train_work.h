#pragma once
// The work behind TrainJob and ClientEvaluateJob: bundle in, update or report out. The same for one
// client in a process and for many in simulation: jobs say whose they are.

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "client/jobs.h"
#include "client/site.h"
#include "common/runtime/executor.h"

namespace weft {

struct TrainWorkOptions {
  std::vector<std::shared_ptr<Site>> sites;  // one per client of this process
  /// Told memory plans and retries, with the client's name; may be empty. Called by workers.
  std::function<void(const ClientId& client, const std::string& text)> on_notice;
};

/// Registers both jobs. A job for a client that is not among the sites is a bug (checked).
void RegisterTrainWork(WorkTable& table, TrainWorkOptions options);

/// One round at a site. The bundle's "adapter" section is the start (absent: a fresh adapter from
/// the plan's seed), "frozen" is applied beside it. The header is complete but for times, which the
/// node measures.
[[nodiscard]] Result<TrainJob::Output> TrainRound(Site& site, const TrainJob& job,
                                                  JobControl& control,
                                                  std::function<void(const std::string&)> notice);

/// The loss of the bundle's adapters on the site's validation rows.
[[nodiscard]] Result<EvalReport> EvaluateVersion(Site& site, const ClientEvaluateJob& job,
                                                 JobControl& control);

}  // namespace weft
