#pragma once
// The functions behind the aggregator's jobs (jobs.h) that touch tensors: init, merge, cut, admit,
// export. main() registers them; they run on the executor's threads.

#include "aggregator/jobs.h"

namespace weft {

/// Registers InitJob, MergeJob, CutJob, AdmitJob and ExportJob.
void RegisterMergeWork(WorkTable& table);

[[nodiscard]] Result<InitJob::Output> RunInit(const InitJob& job, JobControl& control);
[[nodiscard]] Result<MergeJob::Output> RunMerge(const MergeJob& job, JobControl& control);
[[nodiscard]] Result<CutJob::Output> RunCut(const CutJob& job, JobControl& control);
[[nodiscard]] Result<AdmitJob::Output> RunAdmit(const AdmitJob& job, JobControl& control);
[[nodiscard]] Result<ExportJob::Output> RunExport(const ExportJob& job, JobControl& control);

}  // namespace weft
