#pragma once
// The header of a safetensors file: names, element types, shapes and places of tensors. Bytes in,
// plain structs out; hostile bytes give a Status. Format: u64 little-endian header length · JSON
// object {name: {dtype, shape, data_offsets}, "__metadata__": {string: string}} padded with blanks
// · tensor data without gaps (github.com/huggingface/safetensors, README "Format"). Any thread.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/plan/dtype.h"

namespace weft {

/// One tensor of a file: row-major, little-endian, bytes [begin, end) of the file.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;

  friend bool operator==(const TensorInfo&, const TensorInfo&) = default;
};

/// "[4×64]"; a scalar is "[]".
[[nodiscard]] std::string ShapeText(const std::vector<int64_t>& shape);

/// Bytes of a tensor; nothing when a dimension is negative or the product overflows 63 bits.
[[nodiscard]] std::optional<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape);

using SafetensorsMetadata = std::vector<std::pair<std::string, std::string>>;

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  SafetensorsMetadata metadata;     // in the order written
};

/// Parses the beginning of a file of `file_bytes` bytes; `head` must hold the header (the whole
/// file may be given). `name` stands in errors. Refused with kInvalidArgument: header length 0 or
/// over limits::kSafetensorsHeaderMax, no strict JSON, doubled names, unknown fields or element
/// types, offsets that are out of range, overlap, leave gaps or differ from shape × element size.
/// kDataLoss: the file ends before the header or the data does.
[[nodiscard]] Result<SafetensorsHeader> ParseSafetensorsHeader(ByteSpan head, uint64_t file_bytes,
                                                               std::string_view name);

}  // namespace weft
