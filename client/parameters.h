#pragma once
// What an optimiser changes: parallel lists of parameters and gradients. An adapter's are gathered
// into one buffer, so that a step is one kernel; a model's own weights stay where they are. One
// thread.

#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/model/model.h"
#include "common/tensor/torch.h"

namespace weft {

struct ParameterSet {
  std::vector<at::Tensor> values;     // float32
  std::vector<at::Tensor> gradients;  // autograd adds into these

  [[nodiscard]] int64_t NumElements() const;
  void ZeroGradients();
  /// ‖g‖₂ over all of them together.
  [[nodiscard]] double GradientNorm() const;
  void ScaleGradients(double factor);
};

/// A copy of `start` on `device` whose trainable tensors, its dense part last, are leaves that view
/// one buffer.
struct FlatAdapter {
  AdapterState state;
  ParameterSet parameters;  // one value and one gradient tensor, both flat
};
[[nodiscard]] Result<FlatAdapter> Flatten(const AdapterState& start, at::Device device);

/// The model's own weights, for full fine-tuning; kFailedPrecondition if it was loaded without.
[[nodiscard]] Result<ParameterSet> WeightsOf(const Model& model);

}  // namespace weft
