#include "common/evaluate/class_rows.h"

#include <set>

#include "common/base/str.h"
#include "common/data/batch.h"
#include "common/tensor/guard.h"

// Shape legend: N tokens, L rows, C classes.

namespace weft {
namespace {

Status CheckAnswers(const Model& model, std::span<const int32_t> answers) {
  if (model.config().is_encoder()) {
    if (answers.empty()) return OkStatus();
    return InvalidArgument("[classes] an encoder has classes of its own, no answers");
  }
  const std::set<int32_t> different(answers.begin(), answers.end());
  if (different.size() != answers.size() || answers.size() < 2) {
    return InvalidArgument(Str("[classes] ", answers.size(), " answers, ", different.size(),
                               " of them different: a decoder needs two or more"));
  }
  if (*different.begin() < 0 || *different.rbegin() >= model.config().vocab_size) {
    return InvalidArgument(Str("[classes] answers ", *different.begin(), " … ", *different.rbegin(),
                               " for a vocabulary of ", model.config().vocab_size));
  }
  return OkStatus();
}

}  // namespace

Result<ClassBatch> PackClassRows(const Model& model, std::span<const TokenRow* const> rows,
                                 std::span<const int32_t> answers) {
  WEFT_TRY(CheckAnswers(model, answers));
  const bool encoder = model.config().is_encoder();
  std::vector<int64_t> row_of;
  std::vector<int64_t> last;
  for (size_t i = 0; i < rows.size(); ++i) {
    const TokenRow& row = *rows[i];
    const bool fits =
        row.row_class >= 0 && (encoder || static_cast<size_t>(row.row_class) < answers.size());
    if (row.ids.empty() || !row.labels.empty() || !fits) {
      return InvalidArgument(Str("[classes] row ", i, " of a batch: ", row.ids.size(),
                                 " tokens, class ", row.row_class, ", wanted tokens and a class",
                                 encoder ? Str("") : Str(" below ", answers.size())));
    }
    row_of.insert(row_of.end(), row.ids.size(), static_cast<int64_t>(i));
    last.push_back(static_cast<int64_t>(row_of.size()) - 1);
  }
  const auto on_device = [&](const auto& values) {
    const std::vector<int64_t> wide(values.begin(), values.end());
    return at::tensor(wide, at::kLong).to(model.device());
  };
  ClassBatch batch{Pack(rows, {.device = model.device()}), on_device(row_of), {}};
  if (encoder) return batch;
  batch.packed.label_at_L = on_device(last);
  batch.answers_C = on_device(answers);
  return batch;
}

Result<at::Tensor> ClassLogProbabilities(const Model& model, const AdapterBinding& adapters,
                                         const ClassBatch& batch) {
  return Guarded("[classes]", [&]() -> Result<at::Tensor> {
    const at::NoGradGuard no_grad;
    at::Tensor logits = model.Logits(batch.packed, adapters);
    if (batch.answers_C.defined()) logits = logits.index_select(1, batch.answers_C);
    if (batch.packed.labels_L.max().item<int64_t>() >= logits.size(1)) {
      return InvalidArgument(Str("[classes] a row is of class ",
                                 batch.packed.labels_L.max().item<int64_t>(), ", the head tells ",
                                 logits.size(1), " classes apart"));
    }
    if (!at::isfinite(logits).all().item<bool>()) {
      return Internal(
          "[classes] logits are not finite: training diverged, or the weights are "
          "damaged; lower the learning rate");
    }
    return at::log_softmax(logits.to(at::kDouble), 1);
  });
}

}  // namespace weft
