#pragma once
// The loss of a model with adapters over rows. Stateless.

#include <span>

#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/model/model.h"
#include "common/runtime/executor.h"

namespace weft {

struct RowsLoss {
  double loss = 0;  // mean over label tokens
  uint64_t label_tokens = 0;
  uint64_t num_examples = 0;
};

/// Rows in their order, `batch_rows` at a time; a batch that does not fit into memory is tried
/// again in halves. kCancelled when the control says so; kInternal naming the row where the loss is
/// not finite.
[[nodiscard]] Result<RowsLoss> EvaluateRows(const Model& model, const AdapterBinding& adapters,
                                            std::span<const TokenRow> rows, int64_t batch_rows,
                                            JobControl& control);

}  // namespace weft
