#pragma once
// How well predicted probabilities agree with what happened. Stateless.
//
// Shape legend: N examples, C classes.

#include <cstdint>

#include "common/base/result.h"
#include "common/tensor/torch.h"

namespace weft {

inline constexpr int64_t kCalibrationBins = 15;

struct Calibration {
  uint64_t examples = 0;
  double accuracy = 0;  // share of rows whose likeliest class is the label; ties: the lower class
  double nll = 0;       // mean −log p(label), natural logarithm; p below 1e-300 counts as 1e-300
  double brier = 0;     // mean Σ_c (p_c − [c is the label])², 0 … 2 (Brier 1950)
  /// Σ over bins of share·|accuracy − mean confidence|, confidence the largest probability, bins
  /// ((i−1)/M, i/M] of equal width (Guo et al. 2017).
  double ece = 0;
  int64_t bins = 0;  // M
};

/// probabilities [N×C], rows adding up to 1 (to 1e-4); labels [N], int64 in [0, C).
/// kInvalidArgument naming what is wrong otherwise.
[[nodiscard]] Result<Calibration> MeasureCalibration(const at::Tensor& probabilities_NC,
                                                     const at::Tensor& labels_N,
                                                     int64_t bins = kCalibrationBins);

}  // namespace weft
