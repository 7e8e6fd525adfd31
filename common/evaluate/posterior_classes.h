#pragma once
// Class probabilities of rows under the Laplace posterior of a LoRA adapter: the linearised
// model's, averaged over draws, and those of the adapter itself beside them. Stateless.
//
// Shape legend: L rows, C classes.

#include <cstdint>
#include <span>
#include <vector>

#include "common/evaluate/measure_curvature.h"
#include "common/laplace/calibration.h"
#include "common/laplace/predictive.h"

namespace weft {

struct PosteriorSettings {
  std::vector<int32_t> answers = {};  // see PackClassRows
  int64_t batch_rows = 4;         // each row of a batch holds C copies of the adapter, in float64
  MonteCarloSettings draws = {};  // first_example is row 0's number
};

struct PosteriorClasses {
  at::Tensor map_LC;      // softmax at the adapter itself
  at::Tensor average_LC;  // over the posterior
  Calibration map;
  Calibration average;
};

/// `precisions`: one prior precision λ a matrix, or one for all. kFailedPrecondition where the
/// posterior was made at another adapter; else the errors of DifferentiateClasses, LogitCovariance
/// and MonteCarloProbabilities; kCancelled when the control says so.
[[nodiscard]] Result<PosteriorClasses> EvaluatePosterior(const MeasuredAdapter& measured,
                                                         const LaplacePosterior& posterior,
                                                         std::span<const double> precisions,
                                                         std::span<const TokenRow> rows,
                                                         const PosteriorSettings& settings,
                                                         JobControl& control);

/// Prior precision by validation, where the evidence misleads (an adapter that its training rows
/// leave without doubt has next to no curvature): the candidate, one for all matrices, under which
/// the average gives the rows' classes the least NLL; the first of equally good ones. One pass of
/// gradients serves all.
[[nodiscard]] Result<double> ChoosePrecision(const MeasuredAdapter& measured,
                                             const LaplacePosterior& posterior,
                                             std::span<const double> candidates,
                                             std::span<const TokenRow> rows,
                                             const PosteriorSettings& settings,
                                             JobControl& control);

}  // namespace weft
