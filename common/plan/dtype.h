#pragma once
// DType: the element types that files and wire blocks may carry, with their safetensors names and
// sizes. Torch-free; common/tensor maps them to torch's.

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace weft {

/// The numbers are written into hashes and wire messages: append, never renumber.
enum class DType : uint8_t {
  kFloat64 = 0,
  kFloat32 = 1,
  kFloat16 = 2,   // IEEE binary16
  kBFloat16 = 3,  // the upper half of a binary32
  kInt64 = 4,
  kInt32 = 5,
  kInt16 = 6,
  kInt8 = 7,
  kUInt8 = 8,
  kBool = 9,  // one byte, 0 or 1
};

struct DTypeInfo {
  DType dtype;
  std::string_view name;  // as safetensors headers write it
  size_t bytes;           // of one element
  bool floating;
};

inline constexpr std::array<DTypeInfo, 10> kDTypes = {{
    {DType::kFloat64, "F64", 8, true},
    {DType::kFloat32, "F32", 4, true},
    {DType::kFloat16, "F16", 2, true},
    {DType::kBFloat16, "BF16", 2, true},
    {DType::kInt64, "I64", 8, false},
    {DType::kInt32, "I32", 4, false},
    {DType::kInt16, "I16", 2, false},
    {DType::kInt8, "I8", 1, false},
    {DType::kUInt8, "U8", 1, false},
    {DType::kBool, "BOOL", 1, false},
}};

/// `dtype` must be one of the enumerators; bytes from a peer go through DTypeFromNumber first.
[[nodiscard]] constexpr const DTypeInfo& InfoOf(DType dtype) {
  return kDTypes[static_cast<size_t>(dtype)];
}
[[nodiscard]] constexpr std::string_view DTypeName(DType dtype) { return InfoOf(dtype).name; }
[[nodiscard]] constexpr size_t DTypeBytes(DType dtype) { return InfoOf(dtype).bytes; }
[[nodiscard]] constexpr bool IsFloating(DType dtype) { return InfoOf(dtype).floating; }

[[nodiscard]] constexpr std::optional<DType> DTypeFromName(std::string_view name) {
  for (const DTypeInfo& info : kDTypes) {
    if (info.name == name) return info.dtype;
  }
  return std::nullopt;
}

[[nodiscard]] constexpr std::optional<DType> DTypeFromNumber(uint64_t number) {
  if (number >= kDTypes.size()) return std::nullopt;
  return static_cast<DType>(number);
}

}  // namespace weft
