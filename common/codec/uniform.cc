#include "common/codec/uniform.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "common/base/check.h"
#include "common/base/str.h"
#include "common/codec/packed_codec.h"

namespace weft {
namespace {

constexpr int kLowBits = 7;  // of float32's 24 significant ones, those that a step leaves zero

int LargestCode(std::string_view packing) { return packing == kUniform8Packing ? 127 : 7; }

// The least step of 17 significant bits of which `codes` reach `largest`. Rounding up makes it at
// most 2⁻¹⁶ larger, so the largest element still is `codes` steps.
float StepFor(float largest, int codes) {
  const double exact = static_cast<double>(largest) / codes;
  auto step = static_cast<float>(exact);
  if (static_cast<double>(step) < exact) step = std::nextafter(step, INFINITY);
  const auto bits = std::bit_cast<uint32_t>(step);
  constexpr uint32_t kMask = (1U << kLowBits) - 1;
  return std::bit_cast<float>((bits + kMask) & ~kMask);
}

std::vector<float> Floats(const BlockTensor& plain) {
  std::vector<float> values(plain.bytes.size() / sizeof(float));
  std::memcpy(values.data(), plain.bytes.data(), values.size() * sizeof(float));
  return values;
}

uint64_t PackedBytes(uint64_t elements, std::string_view packing) {
  return sizeof(float) + (packing == kUniform8Packing ? elements : (elements + 1) / 2);
}

Status Wrong(const BlockTensor& tensor, const std::string& what) {
  return InvalidArgument(Str("tensor ", tensor.name, " packed as ", tensor.packing, ": ", what));
}

// Codes as signed bytes; −128 stands for one that is none.
std::vector<int8_t> CodesOf(const BlockTensor& packed, uint64_t elements) {
  const ByteSpan bytes = packed.bytes.span().subspan(sizeof(float));
  std::vector<int8_t> codes(elements);
  if (packed.packing == kUniform8Packing) {
    std::memcpy(codes.data(), bytes.data(), elements);
    return codes;
  }
  for (uint64_t i = 0; i < elements; ++i) {
    const auto byte = std::to_integer<unsigned>(bytes[i / 2]);
    const unsigned half = i % 2 == 0 ? byte & 0xFU : byte >> 4;
    codes[i] = half == 0 ? int8_t{-128} : static_cast<int8_t>(static_cast<int>(half) - 8);
  }
  return codes;
}

template <const std::string_view& kPacking>
Result<BlockTensor> Pack(const BlockTensor& plain) {
  return PackUniform(plain, kPacking);
}

}  // namespace

BlockTensor PackUniform(const BlockTensor& plain, std::string_view packing) {
  WEFT_CHECK(plain.packing.empty() && plain.dtype == DType::kFloat32, plain.name);
  const std::vector<float> values = Floats(plain);
  float largest = 0;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  const float step = StepFor(largest, LargestCode(packing));
  std::vector<std::byte> bytes(PackedBytes(values.size(), packing));
  std::memcpy(bytes.data(), &step, sizeof(step));
  std::byte* const out = bytes.data() + sizeof(step);
  const bool wide = packing == kUniform8Packing;
  if (!wide) std::fill(out, bytes.data() + bytes.size(), std::byte{0x88});
  const double per_step = step > 0 ? 1.0 / static_cast<double>(step) : 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const auto code = static_cast<int>(std::lround(static_cast<double>(values[i]) * per_step));
    if (wide) {
      out[i] = static_cast<std::byte>(code);
    } else {
      const auto half = static_cast<std::byte>(code + 8);
      out[i / 2] = i % 2 == 0 ? (out[i / 2] & std::byte{0xF0}) | half
                              : (out[i / 2] & std::byte{0x0F}) | (half << 4);
    }
  }
  BlockTensor packed = plain;
  packed.packing = packing;
  packed.bytes = Blob::Adopt(std::move(bytes));
  return packed;
}

Result<BlockTensor> UnpackUniform(const BlockTensor& packed) {
  uint64_t elements = 1;
  for (const int64_t side : packed.shape) elements *= static_cast<uint64_t>(side);
  const uint64_t wanted = PackedBytes(elements, packed.packing);
  if (packed.dtype != DType::kFloat32) {
    return Wrong(packed, Str("its elements are ", DTypeName(packed.dtype), ", wanted F32"));
  }
  if (packed.bytes.size() != wanted) {
    return Wrong(packed, Str("got ", packed.bytes.size(), " bytes, wanted ", wanted));
  }
  float step = 0;
  std::memcpy(&step, packed.bytes.data(), sizeof(step));
  const int largest = LargestCode(packed.packing);
  const uint32_t low_bits = std::bit_cast<uint32_t>(step) & ((1U << kLowBits) - 1);
  if (!std::isfinite(step * static_cast<float>(largest)) || std::signbit(step) || low_bits != 0) {
    return Wrong(packed,
                 Str("its step is ", step, ", wanted a finite number of 17 bits from 0 up"));
  }
  std::vector<float> values(elements);
  const std::vector<int8_t> codes = CodesOf(packed, elements);
  for (uint64_t i = 0; i < elements; ++i) {
    if (codes[i] < -largest || (step == 0 && codes[i] != 0)) {
      return Wrong(packed, Str("element ", i, " has a code outside ±", step == 0 ? 0 : largest));
    }
    values[i] = step * static_cast<float>(codes[i]);
  }
  if (packed.packing == kUniform4Packing && elements % 2 == 1 &&
      (packed.bytes.span().back() & std::byte{0xF0}) != std::byte{0x80}) {
    return Wrong(packed, "the padding behind its last element is not zero");
  }
  BlockTensor plain = packed;
  plain.packing.clear();
  std::vector<std::byte> bytes(elements * sizeof(float));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  plain.bytes = Blob::Adopt(std::move(bytes));
  return plain;
}

const ValuePacking& Uniform8Packing() {
  static const ValuePacking packing{kUniform8Packing, false, Pack<kUniform8Packing>, UnpackUniform};
  return packing;
}

const ValuePacking& Uniform4Packing() {
  static const ValuePacking packing{kUniform4Packing, false, Pack<kUniform4Packing>, UnpackUniform};
  return packing;
}

const Codec& Uniform8Codec() {
  static const PackedCodec codec(Uniform8Packing(), {Rounding::kWholeTensor, 1.0 / 253});
  return codec;
}

const Codec& Uniform4Codec() {
  static const PackedCodec codec(Uniform4Packing(), {Rounding::kWholeTensor, 1.0 / 13.9});
  return codec;
}

}  // namespace weft
