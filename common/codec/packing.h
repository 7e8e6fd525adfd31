#pragma once
// The one door through which packed tensors (BlockTensor::packing) become plain ones. A packing is
// "sparse" (the elements that are not zero, plainly), one of the value packings (value_packing.h:
// every element), or both: "sparse-int8" has the elements that are not zero packed as int8.

#include "common/base/result.h"
#include "common/codec/value_packing.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// In the shortest packing that loses nothing, if one is shorter than plain bytes; else as it is,
/// as is one that its codec packed. `compress`: by planes (planes.h) too, which costs time.
[[nodiscard]] BlockTensor Packed(BlockTensor plain, bool compress = false);

/// A plain float32 tensor by a packing that loses something: all elements, or those that are not
/// zero where that is shorter. Errors are those of its pack().
[[nodiscard]] Result<BlockTensor> PackedBy(const ValuePacking& how, const BlockTensor& plain);

/// Is it packed by that value packing, sparse or not?
[[nodiscard]] bool IsPackedBy(const ValuePacking& how, const BlockTensor& tensor);

/// Of a packing that loses nothing, or plain: what may stand in for a codec's plain bytes.
[[nodiscard]] bool IsLossless(const BlockTensor& tensor);

/// The plain tensor, of finite values; one that is plain is returned as it is, unlooked at.
/// kInvalidArgument for a packing that is unknown or bytes that are not of its form.
[[nodiscard]] Result<BlockTensor> Unpacked(const BlockTensor& tensor);

/// kInvalidArgument naming section, site and tensor unless every packed tensor can be unpacked.
[[nodiscard]] Status CheckPacked(const TensorBlock& block);

/// Is every element zero, of either sign? False for packed bytes that are malformed.
[[nodiscard]] bool IsZero(const BlockTensor& tensor);

}  // namespace weft
