#pragma once
// Codecs "int8", "int4" and "nf4": elements in blocks of 64 neighbours, each block with a scale of
// its own, so that a large element costs precision only beside it. Lossy; a zero stays zero.
//
//   int8  code · scale, code −127 … 127                                       8.25 bits an element
//   int4  (code − zero) · scale, code 0 … 15, zero the code of 0 in the block  4.31
//   nf4   level[code] · scale, 16 levels where a normal distribution has its   4.25
//         quantiles (QLoRA, Dettmers et al. 2023, section 3)
//
// Bytes: i16 exponent e, −100 … 112 · a float16 a block, the scale in units of 2^e: zero or normal,
// for float16 alone would not reach down to a late round's updates · int4: the zeros, half a byte a
// block · the codes, a byte (int8) or half a byte an element. Halves go low half first; what pads
// the last byte is zero. Of N elements there are ⌈N/64⌉ blocks; the last may be short.

#include <string_view>

#include "common/base/result.h"
#include "common/codec/codec.h"
#include "common/codec/value_packing.h"

namespace weft {

inline constexpr int64_t kBlockElements = 64;

[[nodiscard]] const ValuePacking& Int8Packing();
[[nodiscard]] const ValuePacking& Int4Packing();
[[nodiscard]] const ValuePacking& Nf4Packing();

[[nodiscard]] const Codec& Int8Codec();
[[nodiscard]] const Codec& Int4Codec();
[[nodiscard]] const Codec& Nf4Codec();

/// The 16 levels of nf4, float32, ascending from −1 to 1; level 7 is 0.
[[nodiscard]] const at::Tensor& Nf4Levels();

}  // namespace weft
