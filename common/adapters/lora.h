#pragma once
// LoRA (Hu et al. 2021): ΔW = s·B·A with s = alpha/r, or alpha/√r with rsLoRA. Stateless. Option
// lora.train = "both", "A" or "B": the other factor stays as it was sent. Option lora.private = r':
// each client trains a pair of that rank of its own beside the shared one (FedDPA's dual adapter,
// Yang et al. 2024), which stays with it over the rounds: ΔW = s·(B·A + B'·A').

#include "common/adapters/adapter.h"

namespace weft {

/// Which slots of the global adapter a client is given: the aggregator's own note in the plan,
/// which a client does not look at.
inline constexpr char kSlotsOption[] = "lora.slots";

[[nodiscard]] const Adapter* LoraAdapter();

/// The factor that the spec says trains: "both", "A" or "B".
[[nodiscard]] std::string TrainedFactor(const AdapterSpec& lora);

}  // namespace weft
