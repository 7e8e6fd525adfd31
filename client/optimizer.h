#pragma once
// AdamW (Loshchilov and Hutter 2019) over a ParameterSet; torch's fused kernel where the parameters
// are one buffer. One thread.

#include "client/parameters.h"
#include "common/plan/round_plan.h"

namespace weft {

class AdamW {
 public:
  /// What is kept of an optimiser between rounds: flat, float32, on the CPU.
  struct Moments {
    int64_t step = 0;
    at::Tensor exp_avg;
    at::Tensor exp_avg_sq;
  };

  /// `parameters` must outlive the optimiser.
  AdamW(const LocalTraining& training, ParameterSet& parameters);

  /// θ ← θ − lr·λ·θ − lr·m̂/(√v̂ + ε) with the gradients that lie in the set.
  void Step(double lr);

  [[nodiscard]] Moments Save() const;
  /// kInvalidArgument if the moments are of another number of parameters.
  [[nodiscard]] Status Restore(const Moments& moments);

  [[nodiscard]] int64_t step() const { return step_; }

 private:
  LocalTraining training_;
  ParameterSet& parameters_;
  int64_t step_ = 0;
  std::vector<at::Tensor> exp_avg_;
  std::vector<at::Tensor> exp_avg_sq_;
  std::vector<at::Tensor> steps_;  // the kernel wants a count per tensor, on its device
};

}  // namespace weft
