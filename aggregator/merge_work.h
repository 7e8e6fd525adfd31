#pragma once
// The functions behind the aggregator's jobs (jobs.h) that touch tensors: init, merge, cut, admit,
// export. main() registers them; they run on the executor's threads.

#include "aggregator/jobs.h"
#include "common/adapters/adapter.h"

namespace weft {

/// Weights of an aggregator that has no base model: every layer is an error that says so.
[[nodiscard]] WeightOf NoBaseWeights();

/// Registers InitJob, MergeJob, FitJob, CutJob, AdmitJob and ExportJob. `weight` serves methods
/// that take something out of the base model.
void RegisterMergeWork(WorkTable& table, WeightOf weight = NoBaseWeights());

[[nodiscard]] Result<InitJob::Output> RunInit(const InitJob& job, JobControl& control,
                                              const WeightOf& weight = NoBaseWeights());
[[nodiscard]] Result<MergeJob::Output> RunMerge(const MergeJob& job, JobControl& control);
[[nodiscard]] Result<CutJob::Output> RunCut(const CutJob& job, JobControl& control);
[[nodiscard]] Result<AdmitJob::Output> RunAdmit(const AdmitJob& job, JobControl& control);
[[nodiscard]] Result<ExportJob::Output> RunExport(const ExportJob& job, JobControl& control);

}  // namespace weft
