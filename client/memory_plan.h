#pragma once
// What training will need in memory, before the first step: printed, and where no micro-batch size
// is given, the reason for the one chosen. Estimates; an out-of-memory step is retried smaller all
// the same. Stateless.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "common/model/model.h"
#include "common/plan/round_plan.h"

namespace weft {

struct MemoryPlan {
  int64_t base_bytes = 0;       // the model's weights (mapped from the file where possible)
  int64_t adapter_bytes = 0;    // trained parameters and their gradients
  int64_t optimizer_bytes = 0;  // AdamW's two moments
  int64_t bytes_per_token = 0;  // kept for the backward pass
  int64_t fixed_bytes = 0;      // buffers that do not grow with the batch: logits, one layer's work
  int64_t row_tokens = 0;       // of the longest row
  int64_t micro_batch_rows = 0;
  int64_t available_bytes = 0;  // on the device now; 0: not known

  [[nodiscard]] int64_t activation_bytes() const;
  /// Beside the base, which is already loaded.
  [[nodiscard]] int64_t training_bytes() const;
  /// "memory: base 513 MB, adapter 19 MB, …".
  [[nodiscard]] std::string Text() const;
};

struct MemoryRequest {
  int64_t trained_parameters = 0;
  int64_t longest_row = 0;
  int64_t available_bytes = 0;  // from AvailableMemory
};

/// Tokens of the longest row there may be: max-len, or the model's context where that is shorter or
/// max-len is 0.
[[nodiscard]] int64_t MaxRowTokens(const LocalTraining& training, const Model& model);

/// Plans a run. A micro-batch size of 0 becomes the largest half, quarter … of the batch that
/// leaves a fifth of the memory free, at least one row.
[[nodiscard]] MemoryPlan PlanMemory(const Model& model, const LocalTraining& training,
                                    const MemoryRequest& request);

/// What the process's control group (v2) and those above it leave, in bytes; nothing where none has
/// a limit. `groups`: /sys/fs/cgroup, `own`: /proc/self/cgroup.
[[nodiscard]] std::optional<int64_t> ControlGroupLeft(const std::filesystem::path& groups,
                                                      const std::filesystem::path& own);

/// Free memory of the device: of the CPU what /proc/meminfo and the process's control group leave.
/// 0 where it cannot be known.
[[nodiscard]] int64_t AvailableMemory(at::Device device);

}  // namespace weft
