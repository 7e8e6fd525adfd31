#pragma once
// DType ⇄ torch's element types, and tensors over stored bytes. Throws nothing; stateless.

#include <optional>
#include <span>
#include <vector>

#include "common/base/bytes.h"
#include "common/plan/dtype.h"
#include "common/tensor/torch.h"

namespace weft {

[[nodiscard]] at::ScalarType ToTorch(DType dtype);
/// Nothing for a torch type that files and wire blocks do not carry.
[[nodiscard]] std::optional<DType> FromTorch(at::ScalarType type);

/// A CPU tensor over the blob's own memory, kept alive by it: read-only by convention, no copy.
/// Bytes that are not aligned to the element size are copied. Size must fit the shape (checked).
[[nodiscard]] at::Tensor TensorOver(const Blob& bytes, DType dtype, std::span<const int64_t> shape);

/// The bytes of a contiguous CPU tensor (checked); they live as long as the tensor.
[[nodiscard]] ByteSpan BytesOf(const at::Tensor& tensor);

}  // namespace weft
