#include "client/schedule.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "client/objectives/objective.h"
#include "common/base/str.h"
#include "common/data/token_rows.h"

namespace weft {
namespace {

Status Wrong(std::string_view name, const auto& got, std::string_view wanted) {
  return InvalidArgument(Str("[train] ", name, " is ", got, ", wanted ", wanted));
}

bool IsOneOf(std::string_view value, std::initializer_list<std::string_view> known) {
  return std::find(known.begin(), known.end(), value) != known.end();
}

// From `min` to `max`; nothing above it means anything, and sums of it would overflow.
Status CheckCount(std::string_view name, int64_t got, int64_t min, int64_t max) {
  if (got >= min && got <= max) return OkStatus();
  return Wrong(name, got, Str(min, " to ", max));
}

Status CheckCounts(const LocalTraining& training) {
  WEFT_TRY(CheckCount("local_steps", training.local_steps, 0, kTrainStepsMax));
  WEFT_TRY(CheckCount("local_epochs", training.local_epochs, training.local_steps == 0 ? 1 : 0,
                      kTrainEpochsMax));
  WEFT_TRY(CheckCount("batch_size", training.batch_size, 1, kBatchRowsMax));
  if (training.micro_batch_size < 0 || training.micro_batch_size > training.batch_size) {
    return Wrong("micro_batch_size", training.micro_batch_size,
                 Str("0 to batch_size, ", training.batch_size));
  }
  WEFT_TRY(CheckCount("max_len", training.max_len, 0, kRowTokensMax));
  WEFT_TRY(CheckCount("warmup_steps", training.warmup_steps, 0, kTrainStepsMax));
  WEFT_TRY(CheckCount("schedule_steps", training.schedule_steps, 0, kTrainStepsMax));
  return CheckCount("steps_done", training.steps_done, 0, std::numeric_limits<int64_t>::max() / 2);
}

Status CheckNumbers(const LocalTraining& training) {
  const auto finite_from_zero = [](double value) { return std::isfinite(value) && value >= 0; };
  if (!finite_from_zero(training.lr)) return Wrong("lr", training.lr, "a number of 0 or more");
  for (const double beta : {training.beta1, training.beta2}) {
    if (!(beta >= 0 && beta < 1)) return Wrong("beta", beta, "0 or more and less than 1");
  }
  if (!finite_from_zero(training.eps)) return Wrong("eps", training.eps, "a number of 0 or more");
  if (!finite_from_zero(training.weight_decay)) {
    return Wrong("weight_decay", training.weight_decay, "a number of 0 or more");
  }
  if (!finite_from_zero(training.grad_clip)) {
    return Wrong("grad_clip", training.grad_clip, "a number of 0 or more (0: no clipping)");
  }
  return OkStatus();
}

}  // namespace

Status CheckTraining(const LocalTraining& training) {
  WEFT_TRY(CheckCounts(training));
  WEFT_TRY(CheckNumbers(training));
  WEFT_TRY(CheckLongRows(training.long_rows));
  if (!IsOneOf(training.row_order, {"shuffle", "file"})) {
    return Wrong("row_order", training.row_order, "shuffle or file");
  }
  if (!IsOneOf(training.schedule, {"constant", "linear", "cosine"})) {
    return Wrong("schedule", training.schedule, "constant, linear or cosine");
  }
  if (training.optimizer != "adamw") return Wrong("optimizer", training.optimizer, "adamw");
  WEFT_TRY_ASSIGN(const Objective* objective, FindObjective(training.objective));
  return objective->Check(training);
}

double LearningRate(const LocalTraining& training, int64_t step, int64_t total) {
  const auto at = static_cast<double>(step);
  const auto warmup = static_cast<double>(training.warmup_steps);
  if (step < training.warmup_steps) return training.lr * at / warmup;
  if (training.schedule == "constant") return training.lr;
  const double decay = std::max(1.0, static_cast<double>(total) - warmup);
  const double progress = std::min(1.0, (at - warmup) / decay);
  if (training.schedule == "linear") return training.lr * (1 - progress);
  return training.lr * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

}  // namespace weft
