#include "common/codec/precision.h"

#include <bit>

#include "common/base/str.h"
#include "common/codec/packing.h"
#include "common/tensor/dtype_map.h"

namespace weft {
namespace {

static_assert(std::endian::native == std::endian::little, "tensor blocks are little-endian");

std::string ShapeText(at::IntArrayRef shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Str(i == 0 ? "" : "×", shape[i]);
  return text + "]";
}

class PrecisionCodec : public Codec {
 public:
  PrecisionCodec(std::string_view name, DType dtype, at::ScalarType scalar, double error)
      : name_(name), dtype_(dtype), scalar_(scalar), error_(error) {}

  std::string_view name() const override { return name_; }
  DType dtype() const override { return dtype_; }
  Rounding rounding() const override { return {.error = error_}; }

  Result<BlockTensor> Encode(const NamedTensor& tensor) const override {
    const at::Tensor stored = tensor.value.detach().to(at::kCPU, scalar_).contiguous();
    auto owner = std::make_shared<const at::Tensor>(stored);
    const ByteSpan bytes(static_cast<const std::byte*>(owner->const_data_ptr()), owner->nbytes());
    BlockTensor encoded{tensor.name, dtype_, stored.sizes().vec(), Blob::Share(bytes, owner)};
    if (IsFinite(encoded)) return encoded;
    const bool was_finite = at::isfinite(tensor.value.detach()).all().item<bool>();
    return InvalidArgument(
        was_finite
            ? Str("tensor ", tensor.name, " ", ShapeText(stored.sizes()), ": a value does not fit ",
                  name_, dtype_ == DType::kFloat16 ? "; use codec bfloat16 or float32" : "")
            : Str("tensor ", tensor.name, " ", ShapeText(stored.sizes()),
                  ": a value is NaN or infinite"));
  }

  Result<at::Tensor> View(const BlockTensor& tensor) const override {
    if (tensor.dtype != dtype_) {
      return InvalidArgument(Str("tensor ", tensor.name, " is ", DTypeName(tensor.dtype),
                                 ", codec ", name_, " stores ", DTypeName(dtype_)));
    }
    if (!IsLossless(tensor)) {
      return InvalidArgument(Str("tensor ", tensor.name, " is packed as \"", tensor.packing,
                                 "\", which is not of codec ", name_));
    }
    if (!tensor.packing.empty()) {
      WEFT_TRY_ASSIGN(const BlockTensor plain, Unpacked(tensor));
      return View(plain);
    }
    const auto wanted =
        static_cast<uint64_t>(c10::multiply_integers(tensor.shape)) * c10::elementSize(scalar_);
    if (wanted != tensor.bytes.size()) {
      return InvalidArgument(Str("tensor ", tensor.name, " ", ShapeText(tensor.shape), " has ",
                                 tensor.bytes.size(), " bytes, its shape says ", wanted));
    }
    return TensorOver(tensor.bytes, dtype_, tensor.shape).to(at::kFloat);
  }

 private:
  std::string_view name_;
  DType dtype_;
  at::ScalarType scalar_;
  double error_;  // half a unit in the last place, of an element that is normal in the type
};

}  // namespace

const Codec& Float32Codec() {
  static const PrecisionCodec codec("float32", DType::kFloat32, at::kFloat, 0x1p-24);
  return codec;
}

const Codec& Float16Codec() {
  static const PrecisionCodec codec("float16", DType::kFloat16, at::kHalf, 0x1p-11);
  return codec;
}

const Codec& BFloat16Codec() {
  static const PrecisionCodec codec("bfloat16", DType::kBFloat16, at::kBFloat16, 0x1p-8);
  return codec;
}

}  // namespace weft
