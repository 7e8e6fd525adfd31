#pragma once
// The classes that a model with adapters gives to rows. Stateless.

#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/evaluate/metrics.h"
#include "common/laplace/calibration.h"
#include "common/model/model.h"
#include "common/runtime/executor.h"

namespace weft {

struct ClassesResult {
  double loss = 0;  // mean cross-entropy over rows
  ClassScores scores;
  Calibration calibration;
  std::vector<int32_t> predicted;  // of each row; the first of equally likely classes
};

/// Rows with a class (TokenRow::row_class) in their order, `batch_rows` at a time; a batch that
/// does not fit into memory is tried again in halves. kCancelled when the control says so;
/// kInvalidArgument where the head has another number of classes than there are labels; kInternal
/// where logits are not finite.
[[nodiscard]] Result<ClassesResult> EvaluateClasses(const Model& model,
                                                    const AdapterBinding& adapters,
                                                    std::span<const TokenRow> rows,
                                                    const std::vector<std::string>& labels,
                                                    int64_t batch_rows, JobControl& control);

}  // namespace weft
