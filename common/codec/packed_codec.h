#pragma once
// PackedCodec: the codec of a value packing that loses something.

#include "common/codec/codec.h"
#include "common/codec/value_packing.h"

namespace weft {

class PackedCodec final : public Codec {
 public:
  PackedCodec(const ValuePacking& packing, Rounding rounding)
      : packing_(packing), rounding_(rounding) {}

  std::string_view name() const override { return packing_.name; }
  DType dtype() const override { return DType::kFloat32; }
  Rounding rounding() const override { return rounding_; }
  Result<BlockTensor> Encode(const NamedTensor& tensor) const override;
  Result<at::Tensor> View(const BlockTensor& tensor) const override;

 private:
  const ValuePacking& packing_;
  Rounding rounding_;
};

}  // namespace weft
