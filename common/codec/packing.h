#pragma once
// The one door through which packed tensors (BlockTensor::packing) become plain ones. Torch-free.

#include "common/base/result.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// In the shortest packing that loses nothing, if one is shorter than plain bytes; else as it is, as
/// is one that its codec packed.
[[nodiscard]] BlockTensor Packed(BlockTensor plain);

/// The plain tensor, of finite values; one that is plain is returned as it is, unlooked at.
/// kInvalidArgument for a packing that is unknown or bytes that are not of its form.
[[nodiscard]] Result<BlockTensor> Unpacked(const BlockTensor& tensor);

/// kInvalidArgument naming section, site and tensor unless every packed tensor can be unpacked.
[[nodiscard]] Status CheckPacked(const TensorBlock& block);

/// Is every element zero (bits)? False for packed bytes that are malformed.
[[nodiscard]] bool IsZero(const BlockTensor& tensor);

}  // namespace weft
