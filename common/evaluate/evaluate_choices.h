#pragma once
// Multiple choice on a model that predicts tokens: which of a few answers it holds most likely.
// Stateless.

#include <span>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/data/token_rows.h"
#include "common/evaluate/metrics.h"
#include "common/formats/jsonl_rows.h"
#include "common/formats/tokenizer.h"
#include "common/laplace/calibration.h"
#include "common/model/model.h"
#include "common/runtime/executor.h"

namespace weft {

/// A question and its possible answers as token ids: shared[0, prompt) is the prompt, the rest what
/// all answers begin with; each answer goes on from there in its own way.
struct ChoiceRow {
  std::vector<int32_t> shared;
  std::vector<std::vector<int32_t>> answers;  // none is empty
  int32_t right = 0;
};

/// Rows with a prompt whose completion ends in one of `choices` ("the correct answer is answer2"):
/// every answer is the completion with another choice in its place. A row's own choices count
/// before these. Prompts are tokenized as for training; a longer row than max_len loses the
/// beginning of its prompt. kInvalidArgument names a row whose completion ends in no choice, or in
/// fewer than two different ones.
[[nodiscard]] Result<std::vector<ChoiceRow>> TokenizeChoices(
    std::span<const Row> rows, const std::vector<std::string>& choices, const Tokenizer& tokenizer,
    int64_t max_len);

struct ChoicesResult {
  ClassScores scores;       // of the places of choices; accuracy alone where rows have their own
  Calibration calibration;  // of what is held likely of a row's choices, which are all there is
  std::vector<int32_t> predicted;  // of each row
};

/// Choices as classes: rows that end in front of their answers, and the token that tells each
/// answer apart, the same in every row. kInvalidArgument naming the row where it is not.
struct ChoiceClasses {
  std::vector<TokenRow> rows;
  std::vector<int32_t> answers;
};
[[nodiscard]] Result<ChoiceClasses> AsClasses(std::span<const ChoiceRow> rows);

/// Where answers differ in their first token, that token's logit decides; else the likelihood of
/// each answer as a whole. kCancelled when the control says so.
[[nodiscard]] Result<ChoicesResult> EvaluateChoices(const Model& model,
                                                    const AdapterBinding& adapters,
                                                    std::span<const ChoiceRow> rows,
                                                    int64_t batch_rows, JobControl& control);

}  // namespace weft
