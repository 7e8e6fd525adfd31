#pragma once
// What a model answers, greedily: the measures of knowledge editing. Stateless.

#include <cstdint>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/model/model.h"
#include "common/runtime/executor.h"

namespace weft {

/// One flag for each row: is the most likely token right at every label (the one that counts),
/// given the labels before it? Then greedy generation from what is in front of the labels gives
/// just them. Rows without a label are a bug (checked). kCancelled when the control says so.
[[nodiscard]] Result<std::vector<bool>> AnswersAreLabels(const Model& model,
                                                         const AdapterBinding& adapters,
                                                         std::span<const TokenRow> rows,
                                                         int64_t batch_rows, JobControl& control);

/// Each prompt (of one token or more, checked) with the `length` tokens that the model holds most
/// likely one after the other, as labels: what AnswersAreLabels compares another model with.
[[nodiscard]] Result<std::vector<TokenRow>> GreedyAnswers(
    const Model& model, const AdapterBinding& adapters,
    std::span<const std::vector<int32_t>> prompts, int64_t length, int64_t batch_rows,
    JobControl& control);

}  // namespace weft
