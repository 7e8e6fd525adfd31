#pragma once
// What the fused CPU loops share: plain C++ that the compiler vectorises, compiled once per
// instruction set where the compiler can pick a version when the program starts.

#include <bit>
#include <cstdint>

#include "common/tensor/torch.h"

// A function with this mark is compiled for several x86-64 levels and the fitting one is chosen at
// run time. Its loops must be in it, or in functions marked WEFT_INLINE.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define WEFT_MULTIVERSION \
  __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WEFT_MULTIVERSION
#endif
#define WEFT_INLINE inline __attribute__((always_inline))

namespace weft::cpu {

WEFT_INLINE float Load(const float& x) { return x; }
WEFT_INLINE float Load(const uint16_t& bf16) {
  return std::bit_cast<float>(static_cast<uint32_t>(bf16) << 16);
}

WEFT_INLINE void Store(float& to, float x) { to = x; }
/// bfloat16, rounded to nearest even; NaN stays NaN.
WEFT_INLINE void Store(uint16_t& to, float x) {
  const auto bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  to = static_cast<uint16_t>(x != x ? 0x7FC0U : rounded);
}

/// eˣ to about 2 ulp, 0 below −87.3 and saturated above 88.4; NaN stays NaN. Argument reduction x =
/// n·ln 2 + r and the Taylor polynomial of eʳ, |r| ≤ ln 2 / 2.
WEFT_INLINE float Exp(float x) {
  const float low = x < -87.33F ? -87.33F : x;
  const float clamped = low > 88.37F ? 88.37F : low;
  const float scaled = clamped * 1.44269504F;
  const auto n = static_cast<int32_t>(scaled + (scaled < 0 ? -0.5F : 0.5F));
  const auto whole = static_cast<float>(n);
  const float r = (clamped - whole * 0.693359375F) - whole * -2.12194440e-4F;
  float p = 1.3888889e-3F;
  p = p * r + 8.3333333e-3F;
  p = p * r + 4.1666667e-2F;
  p = p * r + 1.6666667e-1F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const float result = p * std::bit_cast<float>(static_cast<uint32_t>(n + 127) << 23);
  const float bounded = x < -87.33F ? 0.0F : result;
  return x != x ? x : bounded;
}

/// The element type of the loops: float, or the bits of a bfloat16.
template <typename T>
const T* DataOf(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* MutableDataOf(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

}  // namespace weft::cpu
