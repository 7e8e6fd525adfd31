#pragma once
// The work behind ServerEvaluateJob: the global adapter's loss on the aggregator's own rows. Only
// an aggregator that evaluates needs the base model's weights.

#include <memory>

#include "aggregator/jobs.h"
#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/model/model.h"

namespace weft {

struct ServerEvaluation {
  std::shared_ptr<const Model> model;
  std::shared_ptr<const TokenRows> rows;
  std::vector<std::string> labels;  // of classes, where rows have one
  int64_t batch_size = 16;
};

/// The model of [model] path and the rows of [evaluate] data, cut at [train] max-len.
[[nodiscard]] Result<ServerEvaluation> LoadServerEvaluation(const Settings& settings);

void RegisterServerEvaluation(WorkTable& table, ServerEvaluation evaluation);

}  // namespace weft
