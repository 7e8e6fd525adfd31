#include "common/tensor/dtype_map.h"

#include <array>
#include <cstring>

#include "common/base/check.h"

namespace weft {
namespace {

// In the order of DType's numbers.
constexpr std::array<at::ScalarType, kDTypes.size()> kTorchTypes = {
    at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
    at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

}  // namespace

at::ScalarType ToTorch(DType dtype) { return kTorchTypes.at(static_cast<size_t>(dtype)); }

std::optional<DType> FromTorch(at::ScalarType type) {
  for (size_t i = 0; i < kTorchTypes.size(); ++i) {
    if (kTorchTypes[i] == type) return kDTypes[i].dtype;
  }
  return std::nullopt;
}

at::Tensor TensorOver(const Blob& bytes, DType dtype, std::span<const int64_t> shape) {
  const at::IntArrayRef sizes(shape.data(), shape.size());
  const size_t element = DTypeBytes(dtype);
  WEFT_CHECK(bytes.size() == static_cast<size_t>(c10::multiply_integers(sizes)) * element,
             bytes.size(), " bytes for ", sizes);
  const auto options = at::TensorOptions().dtype(ToTorch(dtype));
  if (bytes.empty()) return at::empty(sizes, options);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % element != 0) {
    at::Tensor copy = at::empty(sizes, options);
    std::memcpy(copy.mutable_data_ptr(), bytes.data(), bytes.size());
    return copy;
  }
  // torch has no read-only tensors; nobody writes to a frozen weight.
  void* data = const_cast<std::byte*>(bytes.data());
  return at::from_blob(
      data, sizes, [owner = bytes.owner()](void*) {}, options);
}

ByteSpan BytesOf(const at::Tensor& tensor) {
  WEFT_CHECK(tensor.device().is_cpu() && tensor.is_contiguous());
  return {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()};
}

}  // namespace weft
