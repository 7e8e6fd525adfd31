#pragma once
// ValuePacking: a way to write a tensor's values other than one behind the other. Functions over
// bytes: what a codec's Encode and the door for a peer's bytes (packing.h) have in common.

#include <string_view>

#include "common/base/result.h"
#include "common/wire/tensor_block.h"

namespace weft {

struct ValuePacking {
  std::string_view name;  // BlockTensor::packing
  bool lossless = false;  // else float32 values, in fewer bits
  /// `plain` is of finite values; float32 unless lossless. kInvalidArgument if a value does not
  /// fit.
  Result<BlockTensor> (*pack)(const BlockTensor& plain) = nullptr;
  /// The plain tensor, of finite values. kInvalidArgument for bytes that pack() does not write;
  /// their number is judged by the tensor's shape, whatever the bytes say.
  Result<BlockTensor> (*unpack)(const BlockTensor& packed) = nullptr;
};

}  // namespace weft
