#include "common/codec/packed_codec.h"

#include "common/base/str.h"
#include "common/codec/packing.h"
#include "common/codec/precision.h"

namespace weft {

Result<BlockTensor> PackedCodec::Encode(const NamedTensor& tensor) const {
  WEFT_TRY_ASSIGN(const BlockTensor plain, Float32Codec().Encode(tensor));
  return PackedBy(packing_, plain);
}

Result<at::Tensor> PackedCodec::View(const BlockTensor& tensor) const {
  if (!IsPackedBy(packing_, tensor)) {
    return InvalidArgument(Str("tensor ", tensor.name, " is packed as \"", tensor.packing,
                               "\", codec ", name(), " wants its own packing"));
  }
  WEFT_TRY_ASSIGN(const BlockTensor plain, Unpacked(tensor));
  return Float32Codec().View(plain);
}

}  // namespace weft
