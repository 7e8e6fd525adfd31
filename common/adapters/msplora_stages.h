#pragma once
// MSPLoRA's staged training: the run's steps are cut into as many equal shares as there are tiers,
// and in each share one tier alone is trained, from the global one to the layers' own.

#include <memory>
#include <string>
#include <vector>

#include "common/adapters/adapter.h"

namespace weft {

/// Which of `stages` is trained at this step of the run (from 0).
[[nodiscard]] int64_t StageOf(int64_t stages, int64_t step, int64_t total_steps);

/// By how much AdamW's change is too large when its bias correction believes in `counted` steps and
/// the parameters have had gradients for the last `seen` of them only (both from 1). With
/// 1 − β₁ᵏ and 1 − β₂ᵏ as Kingma and Ba (2015) correct the moments:
/// [(1 − β₁ˢ)/√(1 − β₂ˢ)] · [√(1 − β₂ᶜ)/(1 − β₁ᶜ)].
[[nodiscard]] double BiasExcess(const StepSchedule& schedule, int64_t seen, int64_t counted);

/// Before a step the gradients of all other tiers become zero, and after it their parameters become
/// what they were: AdamW would move them on its memory and by weight decay. The tier in training
/// moves as if the optimiser had begun with it. `tiers` from the first stage to the last, as the
/// names of their tensors begin ("global" of "global.A"); not empty (checked).
[[nodiscard]] std::unique_ptr<StepRule> NewStagedTiers(std::vector<std::string> tiers,
                                                       const StepSchedule& schedule);

}  // namespace weft
