#pragma once
// Objective: what local training minimises. A new one is one .cc file and one line in registry.cc.
// Stateless; any thread.

#include <span>
#include <string_view>

#include "common/base/result.h"
#include "common/plan/round_plan.h"
#include "common/tensor/torch.h"

namespace weft {

class Objective {
 public:
  virtual ~Objective() = default;

  /// The registry's name ("sft").
  [[nodiscard]] virtual std::string_view name() const = 0;

  /// kInvalidArgument for settings this objective cannot use.
  [[nodiscard]] virtual Status Check(const LocalTraining& training) const;

  /// Does AddGradient look at the parameters the round started from?
  [[nodiscard]] virtual bool NeedsStart() const { return false; }

  /// Adds the gradient of what is minimised beside the data's loss, once per optimiser step, before
  /// clipping. Lists run in parallel; `start` is empty unless NeedsStart().
  virtual void AddGradient(const LocalTraining& training, std::span<const at::Tensor> values,
                           std::span<const at::Tensor> start,
                           std::span<const at::Tensor> gradients) const = 0;
};

/// Every objective there is, in a fixed order.
[[nodiscard]] std::span<const Objective* const> ObjectiveRegistry();

/// The objective of that name, or kNotFound listing the known ones.
[[nodiscard]] Result<const Objective*> FindObjective(std::string_view name);

// The objectives' constructors, for the registry.
[[nodiscard]] const Objective* SftObjective();
[[nodiscard]] const Objective* FedProxObjective();

}  // namespace weft
