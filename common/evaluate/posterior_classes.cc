#include "common/evaluate/posterior_classes.h"

#include <algorithm>

#include "common/base/str.h"

// Shape legend: L rows, C classes.

namespace weft {
namespace {

/// Probabilities of one batch: the adapter's own, and the average.
struct BatchProbabilities {
  at::Tensor map_LC;
  at::Tensor average_LC;
};

Result<BatchProbabilities> Average(const MeasuredAdapter& measured,
                                   const LaplacePosterior& posterior,
                                   std::span<const double> precisions,
                                   std::span<const TokenRow> rows,
                                   const PosteriorSettings& settings, uint64_t first_row) {
  WEFT_TRY_ASSIGN(const LogProbabilities at_mean,
                  DifferentiateClasses(measured, rows, settings.answers));
  WEFT_TRY_ASSIGN(const at::Tensor covariance_LCC,
                  LogitCovariance(posterior, precisions, at_mean.jacobians_LCOI));
  MonteCarloSettings draws = settings.draws;
  draws.first_example += first_row;
  WEFT_TRY_ASSIGN(const at::Tensor average_LC,
                  MonteCarloProbabilities(at_mean.log_p_LC, covariance_LCC, draws));
  return BatchProbabilities{at_mean.log_p_LC.exp(), average_LC};
}

}  // namespace

Result<PosteriorClasses> EvaluatePosterior(const MeasuredAdapter& measured,
                                           const LaplacePosterior& posterior,
                                           std::span<const double> precisions,
                                           std::span<const TokenRow> rows,
                                           const PosteriorSettings& settings, JobControl& control) {
  if (settings.batch_rows < 1 || rows.empty()) {
    return InvalidArgument(Str("[posterior] ", rows.size(), " rows in batches of ",
                               settings.batch_rows, ", wanted at least one of each"));
  }
  if (posterior.adapter_hash != measured.hash) {
    return FailedPrecondition(Str("[posterior] made at adapter ", posterior.adapter_hash,
                                  ", this one is ", measured.hash,
                                  "; measure the curvature at this adapter"));
  }
  std::vector<at::Tensor> map;
  std::vector<at::Tensor> average;
  std::vector<int64_t> labels;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(settings.batch_rows)) {
    if (control.cancelled) return Cancelled("[posterior] stopped on request");
    const std::span<const TokenRow> batch = rows.subspan(
        begin, std::min(static_cast<size_t>(settings.batch_rows), rows.size() - begin));
    WEFT_TRY_ASSIGN(const BatchProbabilities own,
                    Average(measured, posterior, precisions, batch, settings, begin));
    map.push_back(own.map_LC);
    average.push_back(own.average_LC);
    for (const TokenRow& row : batch) labels.push_back(row.row_class);
    control.progress = static_cast<float>(labels.size()) / static_cast<float>(rows.size());
  }
  PosteriorClasses result{at::cat(map), at::cat(average), {}, {}};
  const at::Tensor labels_L = at::tensor(labels, at::kLong);
  WEFT_TRY_ASSIGN(result.map, MeasureCalibration(result.map_LC, labels_L));
  WEFT_TRY_ASSIGN(result.average, MeasureCalibration(result.average_LC, labels_L));
  return result;
}

}  // namespace weft
