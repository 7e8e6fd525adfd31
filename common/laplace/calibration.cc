#include "common/laplace/calibration.h"

#include "common/base/str.h"
#include "common/tensor/guard.h"

// Shape legend: N examples, C classes, M bins.

namespace weft {
namespace {

constexpr double kLeastProbability = 1e-300;
constexpr double kSumTolerance = 1e-4;  // softmax of float32 logits

Status CheckPredictions(const at::Tensor& p_NC, const at::Tensor& labels_N, int64_t bins) {
  if (bins < 1) return InvalidArgument(Str("[calibration] ", bins, " bins, wanted at least 1"));
  if (p_NC.dim() != 2 || labels_N.dim() != 1 || p_NC.size(0) != labels_N.size(0) ||
      p_NC.numel() == 0 || labels_N.scalar_type() != at::kLong) {
    return InvalidArgument(Str("[calibration] probabilities are ", p_NC.sizes(), ", labels ",
                               labels_N.sizes(), " of ", labels_N.scalar_type(),
                               ", wanted [N, C] and N int64 labels"));
  }
  const bool in_range = p_NC.ge(0).logical_and(p_NC.le(1 + kSumTolerance)).all().item<bool>();
  if (!in_range || !(p_NC.sum(1) - 1).abs().le(kSumTolerance).all().item<bool>()) {
    return InvalidArgument("[calibration] rows are not probabilities that add up to 1");
  }
  if (labels_N.min().item<int64_t>() < 0 || labels_N.max().item<int64_t>() >= p_NC.size(1)) {
    return InvalidArgument(Str("[calibration] labels ", labels_N.min().item<int64_t>(), " … ",
                               labels_N.max().item<int64_t>(), " for ", p_NC.size(1), " classes"));
  }
  return OkStatus();
}

// Σ_m |Σ_{i in m} (correct_i − confidence_i)| / N.
double CalibrationError(const at::Tensor& confidence_N, const at::Tensor& correct_N, int64_t bins) {
  const at::Tensor bin_N =
      (confidence_N * static_cast<double>(bins)).ceil().sub(1).clamp(0, bins - 1).to(at::kLong);
  at::Tensor gap_M = at::zeros({bins}, confidence_N.options());
  gap_M.index_add_(0, bin_N, correct_N - confidence_N);
  return gap_M.abs().sum().item<double>() / static_cast<double>(confidence_N.size(0));
}

}  // namespace

Result<Calibration> MeasureCalibration(const at::Tensor& probabilities_NC,
                                       const at::Tensor& labels_N, int64_t bins) {
  return Guarded("[calibration]", [&]() -> Result<Calibration> {
    const at::NoGradGuard no_grad;
    // On the CPU: index_add_ elsewhere adds in no fixed order.
    const at::Tensor p_NC = probabilities_NC.detach().to(at::kCPU, at::kDouble);
    const at::Tensor labels = labels_N.detach().to(at::kCPU);
    WEFT_TRY(CheckPredictions(p_NC, labels, bins));
    const auto [confidence_N, likeliest_N] = p_NC.max(1);
    const at::Tensor correct_N = likeliest_N.eq(labels).to(at::kDouble);
    const at::Tensor of_label_N = p_NC.gather(1, labels.unsqueeze(1)).squeeze(1);
    // Σ_c (p_c − y_c)² = Σ_c p_c² − 2 p_label + 1.
    const at::Tensor brier_N = p_NC.square().sum(1) - 2 * of_label_N + 1;
    Calibration measured;
    measured.examples = static_cast<uint64_t>(p_NC.size(0));
    measured.accuracy = correct_N.mean().item<double>();
    measured.nll = -of_label_N.clamp_min(kLeastProbability).log().mean().item<double>();
    measured.brier = brier_N.mean().item<double>();
    measured.ece = CalibrationError(confidence_N, correct_N, bins);
    measured.bins = bins;
    return measured;
  });
}

}  // namespace weft
