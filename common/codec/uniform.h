#pragma once
// Codecs "uniform8" and "uniform4": every tensor as whole multiples of one step, −127 … 127 or
// −7 … 7 of them. Lossy: an element moves by at most half a step, largest / 254 or largest / 14.
// Meant for few, alike numbers (NOLA's coefficients: uniform quantisation of each layer's own).
// The packing itself is torch-free.
//
// Bytes: the step (float32 ≥ 0, of 17 significant bits, so that every multiple is exact and
// encoding again gives the same bytes) · one signed byte an element; or two elements a byte, low
// half first, each plus 8, padded by 8.

#include <string_view>

#include "common/base/result.h"
#include "common/codec/codec.h"
#include "common/codec/value_packing.h"

namespace weft {

inline constexpr std::string_view kUniform8Packing = "uniform8";
inline constexpr std::string_view kUniform4Packing = "uniform4";

[[nodiscard]] const ValuePacking& Uniform8Packing();
[[nodiscard]] const ValuePacking& Uniform4Packing();
[[nodiscard]] const Codec& Uniform8Codec();
[[nodiscard]] const Codec& Uniform4Codec();

/// A plain float32 tensor (checked), finite, packed by one of the two.
[[nodiscard]] BlockTensor PackUniform(const BlockTensor& plain, std::string_view packing);

/// The plain float32 tensor. kInvalidArgument for lengths that do not fit, a step that is no finite
/// number of 17 bits, or codes out of range.
[[nodiscard]] Result<BlockTensor> UnpackUniform(const BlockTensor& packed);

}  // namespace weft
