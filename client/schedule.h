#pragma once
// The learning rate of each optimiser step. Stateless.

#include <cstdint>

#include "common/base/result.h"
#include "common/plan/round_plan.h"

namespace weft {

/// kInvalidArgument naming the first setting of local training that makes no sense.
[[nodiscard]] Status CheckTraining(const LocalTraining& training);

/// The rate of optimiser step `step`, counted from 0 over all rounds together; `total` steps are
/// the schedule's length. transformers' definitions: with warm-up the first step has rate 0 and
/// step `warmup_steps` the full one; linear and cosine then fall to 0 at `total`.
[[nodiscard]] double LearningRate(const LocalTraining& training, int64_t step, int64_t total);

}  // namespace weft
