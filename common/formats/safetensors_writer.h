#pragma once
// Writes safetensors files: tensors ordered by element size (largest first), then name, header
// padded with blanks to 8 bytes, so that every tensor is aligned to its elements. Any thread.

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/formats/safetensors_header.h"

namespace weft {

/// A tensor to write; `bytes` are row-major, little-endian and must stay until the call returns.
struct TensorToWrite {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  ByteSpan bytes;
};

/// Replaces `path` in one step (temporary file, fsync, rename). The same tensors and metadata give
/// the same bytes, in whatever order they come. kInvalidArgument for doubled names or text that is
/// not UTF-8; bytes that do not fit the shape are a bug (checked).
[[nodiscard]] Status WriteSafetensors(const std::filesystem::path& path,
                                      std::span<const TensorToWrite> tensors,
                                      const SafetensorsMetadata& metadata = {});

/// The same bytes in memory.
[[nodiscard]] Result<Blob> EncodeSafetensors(std::span<const TensorToWrite> tensors,
                                             const SafetensorsMetadata& metadata = {});

}  // namespace weft
