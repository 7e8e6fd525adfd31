#pragma once
// How factors begin. Stateless; float32 on the CPU.

#include <string_view>

#include "common/plan/adapter_spec.h"
#include "common/tensor/torch.h"

namespace weft {

/// A [rank×in] as PEFT draws it, kaiming_uniform with a = √5: uniform within ±1/√in, from the
/// stream of (seed, path, name).
[[nodiscard]] at::Tensor RandomFactorA(int64_t rank, int64_t in, uint64_t seed,
                                       std::string_view path, std::string_view name);

}  // namespace weft
