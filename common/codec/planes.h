#pragma once
// Packing "planes": floats with their exponents set apart and compressed by zstd. Trained numbers
// have exponents of some 2.6 bits of information and signs and mantissas of as many as they are
// long, so a compressor that meets both mixed finds nothing. Torch-free; nothing is lost.
//
// Bytes, for N elements of w: every element is turned left by one bit, its sign going to the end,
// so that its highest byte is the exponent of a float32 or bfloat16 (of a float16, with 3 bits
// more); then the w − 1 lower bytes, all lowest ones first, and one zstd frame of the N highest
// ones.

#include <string_view>

#include "common/base/result.h"
#include "common/codec/value_packing.h"

namespace weft {

/// Is it of a type that the packing takes: float32, float16 or bfloat16?
[[nodiscard]] bool PlanesFit(DType dtype);

/// Longer than plain bytes where nothing is to be gained.
[[nodiscard]] const ValuePacking& PlanesPacking();

}  // namespace weft
