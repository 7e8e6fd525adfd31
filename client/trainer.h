#pragma once
// Train: one site's local training, from a starting adapter and rows to the trained adapter and its
// numbers. Owns nothing beyond the call, so many may run at once on one model; the caller sets
// torch's thread count. The same input gives the same bits for the same thread count.

#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "client/memory_plan.h"
#include "client/optimizer.h"
#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/data/batcher.h"
#include "common/data/token_rows.h"
#include "common/model/model.h"
#include "common/plan/round_plan.h"
#include "common/runtime/executor.h"

namespace weft {

struct StepReport {
  int64_t step = 0;  // from 1
  int64_t num_steps = 0;
  double loss = 0;       // mean over the batch's label tokens
  double grad_norm = 0;  // before clipping
  double lr = 0;
  int64_t tokens = 0;
  int64_t label_tokens = 0;
};

struct TrainInput {
  std::span<const TokenRow> rows;  // those of `fixed_batches` where that is given; must stay
  std::vector<std::vector<const TokenRow*>> fixed_batches;  // exactly these, in this order
  LocalTraining training;
  AdapterState start;                // what trains; ignored when `full`
  std::vector<AdapterState> frozen;  // applied beside it
  bool full = false;                 // trains the model's own weights instead

  uint64_t seed = 1;  // of the row order and dropout, with client and round
  std::string client;
  uint64_t round = 1;
  int64_t num_rounds = 1;  // for the schedule's length

  std::optional<AdamW::Moments> moments;      // kept from the round before
  std::vector<NamedTensor> step_rule;         // what the method's step rule saved then
  /// The adapter begins in this round and ends with it: so does the method's step rule, whose
  /// schedule else runs over all rounds.
  bool restarts = false;
  std::optional<Batcher::Position> position;  // in file order

  std::function<void(const StepReport&)> on_step;     // may be empty
  /// Asked after every step: true ends the training there. May be empty.
  std::function<bool(const StepReport&)> enough;
  std::function<void(const std::string&)> on_notice;  // memory plan, retries; may be empty
};

struct TrainOutput {
  AdapterState state;  // float32 on the CPU; empty when `full` (the model's weights changed)
  std::vector<StepReport> steps;
  uint64_t num_examples = 0;  // rows used, counted once per use
  uint64_t label_tokens = 0;
  double train_loss = 0;  // mean over the label tokens of all steps
  AdamW::Moments moments;
  std::vector<NamedTensor> step_rule;
  Batcher::Position position;
  MemoryPlan memory;
  int64_t micro_batch_rows = 0;  // after retries
  int64_t memory_retries = 0;
};

/// kInvalidArgument for settings, kInternal naming the step where loss or gradient is not finite
/// (nothing was changed by it), kResourceExhausted when a micro-batch of one row does not fit,
/// kCancelled when the control says so.
[[nodiscard]] Result<TrainOutput> Train(const Model& model, TrainInput input, JobControl& control);

}  // namespace weft
