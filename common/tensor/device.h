#pragma once
// What users write for a device and for the dtype of the computation. Stateless.

#include <string_view>

#include "common/base/result.h"
#include "common/tensor/torch.h"

namespace weft {

/// "cpu", "cuda", "cuda:N", or "auto": the first CUDA device where there is one, else the CPU. The
/// error says what this machine has.
[[nodiscard]] Result<at::Device> ParseDevice(std::string_view text);

/// "float32" or "bfloat16" (also "f32", "bf16", "fp32").
[[nodiscard]] Result<at::ScalarType> ParseComputeType(std::string_view text);

}  // namespace weft
