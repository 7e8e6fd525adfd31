#pragma once
// LoRA (Hu et al. 2021): ΔW = s·B·A with s = alpha/r, or alpha/√r with rsLoRA. Stateless.

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* LoraAdapter();

}  // namespace weft
