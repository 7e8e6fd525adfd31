#pragma once
// The plain codecs: every element stored in one floating-point format.

#include "common/codec/codec.h"

namespace weft {

[[nodiscard]] const Codec& Float32Codec();
[[nodiscard]] const Codec& Float16Codec();   // refuses magnitudes over 65504
[[nodiscard]] const Codec& BFloat16Codec();  // float32's range with 8 bits of precision

}  // namespace weft
