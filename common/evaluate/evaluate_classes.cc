#include "common/evaluate/evaluate_classes.h"

#include <cmath>

#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/tensor/guard.h"

// Shape legend: L rows, V classes.

namespace weft {
namespace {

// Logits of all rows, float32 on the CPU.
Result<at::Tensor> LogitsOf(const Model& model, const AdapterBinding& adapters,
                            std::span<const TokenRow* const> rows) {
  Result<at::Tensor> whole = Guarded("[evaluate]", [&]() -> Result<at::Tensor> {
    const PackedBatch batch = Pack(rows, {.device = model.device()});
    return model.Logits(batch, adapters).to(at::kCPU);
  });
  if (whole.ok() || whole.status().code() != Code::kResourceExhausted || rows.size() == 1) {
    return whole;
  }
  const size_t half = rows.size() / 2;
  WEFT_TRY_ASSIGN(const at::Tensor first, LogitsOf(model, adapters, rows.first(half)));
  WEFT_TRY_ASSIGN(const at::Tensor second, LogitsOf(model, adapters, rows.subspan(half)));
  return at::cat({first, second});
}

}  // namespace

Result<ClassesResult> EvaluateClasses(const Model& model, const AdapterBinding& adapters,
                                      std::span<const TokenRow> rows,
                                      const std::vector<std::string>& labels, int64_t batch_rows,
                                      JobControl& control) {
  std::vector<const TokenRow*> pointers;
  std::vector<int32_t> truth;
  for (const TokenRow& row : rows) {
    pointers.push_back(&row);
    truth.push_back(row.row_class);
  }
  ClassesResult result;
  std::vector<at::Tensor> probabilities;
  const auto classes = static_cast<int64_t>(labels.size());
  for (const auto batch : MicroBatches(pointers, batch_rows)) {
    if (control.cancelled) return Cancelled("[evaluate] stopped on request");
    WEFT_TRY_ASSIGN(const at::Tensor logits_LV, LogitsOf(model, adapters, batch));
    if (logits_LV.size(1) != classes) {
      return InvalidArgument(Str("[evaluate] the head tells ", logits_LV.size(1),
                                 " classes apart, the labels name ", classes));
    }
    const at::Tensor log_p_LV = at::log_softmax(logits_LV.to(at::kDouble), 1);
    const at::Tensor best_L = log_p_LV.argmax(1);
    probabilities.push_back(log_p_LV.exp());
    for (size_t i = 0; i < batch.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      result.loss -= log_p_LV[at][batch[i]->row_class].item<double>();
      result.predicted.push_back(static_cast<int32_t>(best_L[at].item<int64_t>()));
    }
    if (!std::isfinite(result.loss)) {
      return Internal(
          Str("[evaluate] the logits of a row before row ", result.predicted.size(),
              " are not finite: training diverged, or the weights are damaged; lower the learning "
              "rate"));
    }
    control.progress =
        static_cast<float>(result.predicted.size()) / static_cast<float>(rows.size());
  }
  result.loss /= static_cast<double>(rows.size());
  result.scores = ScoreClasses(result.predicted, truth, labels);
  WEFT_TRY_ASSIGN(result.calibration,
                  MeasureCalibration(at::cat(probabilities), at::tensor(truth).to(at::kLong)));
  return result;
}

}  // namespace weft
