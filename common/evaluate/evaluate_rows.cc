#include "common/evaluate/evaluate_rows.h"

#include <cmath>

#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

Result<double> LossSumOf(const Model& model, const AdapterBinding& adapters,
                         std::span<const TokenRow* const> rows) {
  Result<double> whole = Guarded("[evaluate]", [&]() -> Result<double> {
    const at::NoGradGuard no_grad;
    const PackedBatch batch = Pack(rows, {.device = model.device()});
    return model.LossSum(batch, adapters, {}).item<double>();
  });
  if (whole.ok() || whole.status().code() != Code::kResourceExhausted || rows.size() == 1) {
    return whole;
  }
  const size_t half = rows.size() / 2;
  WEFT_TRY_ASSIGN(const double first, LossSumOf(model, adapters, rows.first(half)));
  WEFT_TRY_ASSIGN(const double second, LossSumOf(model, adapters, rows.subspan(half)));
  return first + second;
}

}  // namespace

Result<RowsLoss> EvaluateRows(const Model& model, const AdapterBinding& adapters,
                              std::span<const TokenRow> rows, int64_t batch_rows,
                              JobControl& control) {
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  RowsLoss total;
  double sum = 0;
  for (const auto batch : MicroBatches(pointers, batch_rows)) {
    if (control.cancelled) return Cancelled("[evaluate] stopped on request");
    WEFT_TRY_ASSIGN(const double loss, LossSumOf(model, adapters, batch));
    if (!std::isfinite(loss)) {
      return Internal(
          Str("[evaluate] the loss of rows ", total.num_examples, " to ",
              total.num_examples + batch.size() - 1, " is ", loss,
              ": the adapter's training diverged, or the weights are damaged; lower the "
              "learning rate"));
    }
    sum += loss;
    for (const TokenRow* row : batch) {
      total.label_tokens += static_cast<uint64_t>(row->num_labels());
    }
    total.num_examples += batch.size();
    control.progress = static_cast<float>(total.num_examples) / static_cast<float>(rows.size());
  }
  total.loss = total.label_tokens == 0 ? 0 : sum / static_cast<double>(total.label_tokens);
  return total;
}

}  // namespace weft
