#pragma once
// Packing "sparse": of a tensor whose elements are mostly zero, the others and where they stand.
// Torch-free; stateless. Nothing is lost: the elements keep their bits, −0 counts as an element.
//
// Bytes: u8 form · u32 little-endian count K of the N elements that are not all zero bits ·
// positions · the K elements, in order, as the tensor's dtype stores them. Positions by form:
//   0 bitmask: bit p of ⌈N/8⌉ bytes, lowest first.
//   1 gaps: the l low bits of each position (l = ⌊log2(N/K)⌋), one behind the other, then the steps
//     of the high parts in unary: bit (p_i >> l) + i of K + ((N − 1) >> l) bits (Elias–Fano: gaps
//     of a random support are geometric, for which unary with l low bits is within half a bit of
//     the least). Both parts are padded to whole bytes by zero bits.
// The size follows from N, K and the dtype alone, whatever the positions.

#include <optional>
#include <string_view>

#include "common/base/result.h"
#include "common/wire/tensor_block.h"

namespace weft {

inline constexpr std::string_view kSparsePacking = "sparse";

/// The tensor packed; nothing where plain bytes are as short. `plain` is not packed (checked).
[[nodiscard]] std::optional<BlockTensor> PackSparse(const BlockTensor& plain);

/// The plain tensor. kInvalidArgument naming what is wrong: lengths that do not fit, a form that is
/// unknown, positions out of range, unsorted or repeated, elements that are zero, padding that is
/// not. Values are not looked at otherwise.
[[nodiscard]] Result<BlockTensor> UnpackSparse(const BlockTensor& packed);

/// Bytes of a tensor of `elements` elements of which `count` are not zero, packed.
[[nodiscard]] uint64_t SparseBytes(uint64_t elements, uint64_t count, DType dtype);

}  // namespace weft
