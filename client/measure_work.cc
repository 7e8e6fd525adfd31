#include "client/measure_work.h"

#include "client/memory_plan.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/evaluate/measure_curvature.h"
#include "common/laplace/statistics_file.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

Result<AdapterState> AdapterToMeasure(const Blob& bytes) {
  WEFT_TRY_ASSIGN(AdapterBundle bundle, DecodeBundle(bytes, at::kCPU));
  if (!bundle.frozen || bundle.base_change) {
    return FailedPrecondition(Str("the bundle holds ", bundle.frozen ? "an" : "no",
                                  " adapter to measure and ", bundle.base_change ? "a" : "no",
                                  " change of the base model, wanted the adapter alone"));
  }
  if (bundle.frozen->spec.labels.empty()) {
    return InvalidArgument("the adapter names no classes; set adapter.labels");
  }
  return std::move(*bundle.frozen);
}

Result<TrainJob::Output> Measure(Site& site, const TrainJob& job, JobControl& control) {
  const RoundPlan& plan = job.plan;
  WEFT_TRY_ASSIGN(const AdapterState adapter, AdapterToMeasure(job.bundle));
  WEFT_TRY_ASSIGN(const std::shared_ptr<const Model> model, site.models().Get(plan.training.dtype));
  WEFT_TRY_ASSIGN(const auto rows,
                  site.Tokens(Site::Split::kTrain, MaxRowTokens(plan.training, *model),
                              plan.training.long_rows, adapter.spec.labels));
  WEFT_TRY_ASSIGN(std::string hash, AdapterSha256(adapter));
  CurvatureSettings settings;
  settings.batch_rows = plan.training.micro_batch_size > 0 ? plan.training.micro_batch_size
                                                           : plan.training.batch_size;
  settings.seed = plan.seed;
  const MeasuredAdapter measured{*model, adapter, {}, std::move(hash)};
  WEFT_TRY_ASSIGN(const LaplaceStatistics sums,
                  MeasureCurvature(measured, rows->rows, settings, control));
  TrainJob::Output output;
  WEFT_TRY_ASSIGN(output.payload, EncodeStatistics({sums, std::nullopt}));
  output.local_state = job.local_state;
  UpdateHeader& header = output.header = HeaderOf(job, output.payload);
  header.spec = plan.cohort.front().adapter;
  header.num_examples = header.label_tokens = sums.examples;
  header.train_loss = -sums.log_likelihood / static_cast<double>(sums.examples);
  return output;
}

}  // namespace

Result<TrainJob::Output> MeasureRound(Site& site, const TrainJob& job, JobControl& control) {
  const std::string where = Str("[measure] round ", job.plan.round);
  Result<TrainJob::Output> output =
      Guarded("[measure]", [&] { return Measure(site, job, control); });
  if (!output.ok()) return output.status().Within(where);
  return output;
}

}  // namespace weft
