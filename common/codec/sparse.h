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
// The size follows from N, K and the dtype alone, whatever the positions. Where the K elements are
// packed in their turn (packing.h), those bytes stand in their place, and some may come back zero.

#include <optional>
#include <string_view>
#include <vector>

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

/// A plain tensor's elements that are not zero, and where they stand.
struct SparseParts {
  std::vector<std::byte> support;  // form, count, positions
  BlockTensor values;              // plain, of shape [K]
};

/// Nothing where no element is zero, or there are more than can be counted.
[[nodiscard]] std::optional<SparseParts> SplitSparse(const BlockTensor& plain);

/// The two as one tensor of `plain`'s name and shape.
[[nodiscard]] BlockTensor JoinSparse(const BlockTensor& plain, ByteSpan support, const Blob& values,
                                     std::string packing);

/// What such a tensor says, its values' bytes not looked at.
struct SparseView {
  std::vector<uint32_t> positions;  // ascending
  BlockTensor values;               // of shape [K]; `packing` is the caller's to set
};

/// kInvalidArgument for lengths or positions as UnpackSparse refuses them.
[[nodiscard]] Result<SparseView> ReadSparse(const BlockTensor& packed);

/// The plain tensor of `packed`'s name and shape with `values`, plain bytes, at `positions`.
[[nodiscard]] BlockTensor Scatter(const BlockTensor& packed, const std::vector<uint32_t>& positions,
                                  ByteSpan values);

}  // namespace weft
