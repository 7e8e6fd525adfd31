#include "common/evaluate/posterior_classes.h"

#include <algorithm>
#include <limits>

#include "common/base/str.h"

// Shape legend: L rows, C classes.

namespace weft {
namespace {

/// Probabilities of rows: the adapter's own, and the averages at each choice of precisions.
struct Averages {
  at::Tensor map_LC;
  std::vector<at::Tensor> average_LC;
  at::Tensor labels_L;
};

Status CheckAsked(const MeasuredAdapter& measured, const LaplacePosterior& posterior,
                  std::span<const TokenRow> rows, const PosteriorSettings& settings) {
  if (settings.batch_rows < 1 || rows.empty()) {
    return InvalidArgument(Str("[posterior] ", rows.size(), " rows in batches of ",
                               settings.batch_rows, ", wanted at least one of each"));
  }
  if (posterior.adapter_hash == measured.hash) return OkStatus();
  return FailedPrecondition(Str("[posterior] made at adapter ", posterior.adapter_hash,
                                ", this one is ", measured.hash,
                                "; measure the curvature at this adapter"));
}

// Gradients are what costs; they serve every choice.
Result<Averages> AverageRows(const MeasuredAdapter& measured, const LaplacePosterior& posterior,
                             std::span<const std::vector<double>> choices,
                             std::span<const TokenRow> rows, const PosteriorSettings& settings,
                             JobControl& control) {
  WEFT_TRY(CheckAsked(measured, posterior, rows, settings));
  std::vector<at::Tensor> map;
  std::vector<std::vector<at::Tensor>> averages(choices.size());
  std::vector<int64_t> labels;
  for (size_t begin = 0; begin < rows.size(); begin += static_cast<size_t>(settings.batch_rows)) {
    if (control.cancelled) return Cancelled("[posterior] stopped on request");
    const std::span<const TokenRow> batch = rows.subspan(
        begin, std::min(static_cast<size_t>(settings.batch_rows), rows.size() - begin));
    WEFT_TRY_ASSIGN(const LogProbabilities at_mean,
                    DifferentiateClasses(measured, batch, settings.answers));
    MonteCarloSettings draws = settings.draws;
    draws.first_example += begin;
    for (size_t i = 0; i < choices.size(); ++i) {
      WEFT_TRY_ASSIGN(const at::Tensor covariance_LCC,
                      LogitCovariance(posterior, choices[i], at_mean.jacobians_LCOI));
      WEFT_TRY_ASSIGN(at::Tensor average_LC,
                      MonteCarloProbabilities(at_mean.log_p_LC, covariance_LCC, draws));
      averages[i].push_back(std::move(average_LC));
    }
    map.push_back(at_mean.log_p_LC.exp());
    for (const TokenRow& row : batch) labels.push_back(row.row_class);
    control.progress = static_cast<float>(labels.size()) / static_cast<float>(rows.size());
  }
  Averages all{at::cat(map), {}, at::tensor(labels, at::kLong)};
  for (const std::vector<at::Tensor>& parts : averages) all.average_LC.push_back(at::cat(parts));
  return all;
}

}  // namespace

Result<PosteriorClasses> EvaluatePosterior(const MeasuredAdapter& measured,
                                           const LaplacePosterior& posterior,
                                           std::span<const double> precisions,
                                           std::span<const TokenRow> rows,
                                           const PosteriorSettings& settings, JobControl& control) {
  const std::vector<double> choice(precisions.begin(), precisions.end());
  WEFT_TRY_ASSIGN(const Averages all,
                  AverageRows(measured, posterior, {&choice, 1}, rows, settings, control));
  PosteriorClasses result{all.map_LC, all.average_LC.front(), {}, {}};
  WEFT_TRY_ASSIGN(result.map, MeasureCalibration(result.map_LC, all.labels_L));
  WEFT_TRY_ASSIGN(result.average, MeasureCalibration(result.average_LC, all.labels_L));
  return result;
}

Result<double> ChoosePrecision(const MeasuredAdapter& measured, const LaplacePosterior& posterior,
                               std::span<const double> candidates, std::span<const TokenRow> rows,
                               const PosteriorSettings& settings, JobControl& control) {
  if (candidates.empty()) return InvalidArgument("[posterior] no prior precision to choose from");
  std::vector<std::vector<double>> choices;
  for (const double candidate : candidates) choices.push_back({candidate});
  WEFT_TRY_ASSIGN(const Averages all,
                  AverageRows(measured, posterior, choices, rows, settings, control));
  double best = candidates.front();
  double least = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < candidates.size(); ++i) {
    WEFT_TRY_ASSIGN(const Calibration own, MeasureCalibration(all.average_LC[i], all.labels_L));
    if (own.nll < least) {
      least = own.nll;
      best = candidates[i];
    }
  }
  return best;
}

}  // namespace weft
