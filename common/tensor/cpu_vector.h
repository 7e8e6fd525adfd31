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

/// Sixteen floats: one register, two or four, as the machine has it. Unaligned.
typedef float Lane __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t IntLane __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint32_t BitLane __attribute__((vector_size(64), aligned(4), may_alias));
typedef uint16_t HalfLane __attribute__((vector_size(32), aligned(2), may_alias));
inline constexpr int64_t kLane = 16;

WEFT_INLINE Lane Spread(float x) { return Lane{} + x; }

WEFT_INLINE Lane LoadLane(const float* from) { return *reinterpret_cast<const Lane*>(from); }
WEFT_INLINE Lane LoadLane(const uint16_t* from) {
  const HalfLane half = *reinterpret_cast<const HalfLane*>(from);
  return reinterpret_cast<Lane>(__builtin_convertvector(half, BitLane) << 16);
}

WEFT_INLINE void StoreLane(float* to, Lane x) { *reinterpret_cast<Lane*>(to) = x; }
WEFT_INLINE void StoreLane(uint16_t* to, Lane x) {
  const BitLane bits = reinterpret_cast<BitLane>(x);
  const BitLane rounded = (bits + 0x7FFFU + ((bits >> 16) & 1U)) >> 16;
  const BitLane kept = x != x ? BitLane{} + 0x7FC0U : rounded;
  *reinterpret_cast<HalfLane*>(to) = __builtin_convertvector(kept, HalfLane);
}

/// The first `count` < 16 elements; the others are `fill`, or are left as they are.
template <typename T>
WEFT_INLINE Lane LoadPart(const T* from, int64_t count, float fill) {
  Lane lane = Spread(fill);
  for (int64_t i = 0; i < count; ++i) lane[i] = Load(from[i]);
  return lane;
}
template <typename T>
WEFT_INLINE void StorePart(T* to, Lane x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) Store(to[i], x[i]);
}

WEFT_INLINE Lane Larger(Lane a, Lane b) { return a > b ? a : b; }
/// Over the sixteen elements, halving four times.
WEFT_INLINE float Sum(Lane x) {
  x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
  x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
  x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
  return x[0] + x[1];
}
WEFT_INLINE float Largest(Lane x) {
  x = Larger(x,
             __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  x = Larger(x,
             __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  x = Larger(x,
             __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return x[0] > x[1] ? x[0] : x[1];
}

/// eˣ to about 2 ulp, 0 below −87.3 and saturated above 88.3; NaN stays NaN. Argument reduction x =
/// n·ln 2 + r and the Taylor polynomial of eʳ, |r| ≤ ln 2 / 2.
WEFT_INLINE Lane Exp(Lane x) {
  const Lane low = Spread(-87.3F), high = Spread(88.3F);
  const Lane raised = x < low ? low : x;
  const Lane clamped = raised > high ? high : raised;
  const Lane scaled = clamped * 1.44269504F;
  const IntLane n =
      __builtin_convertvector(scaled + (scaled < 0.0F ? Spread(-0.5F) : Spread(0.5F)), IntLane);
  const Lane whole = __builtin_convertvector(n, Lane);
  const Lane r = (clamped - whole * 0.693359375F) - whole * -2.12194440e-4F;
  Lane p = r * 1.3888889e-3F + 8.3333333e-3F;
  p = p * r + 4.1666667e-2F;
  p = p * r + 1.6666667e-1F;
  p = p * r + 0.5F;
  p = p * r + 1.0F;
  p = p * r + 1.0F;
  const Lane result = p * reinterpret_cast<Lane>((n + 127) << 23);
  const Lane bounded = x < low ? Lane{} : result;
  return x != x ? x : bounded;
}

/// While it lives, this thread's arithmetic takes results below 1.2e-38 for zero. Probabilities of
/// far keys and what is multiplied by them fall there, and each such number costs a hundred cycles.
class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : before_(__builtin_ia32_stmxcsr()) {
    __builtin_ia32_ldmxcsr(before_ | 0x8040U);  // flush to zero, denormals are zero
  }
  ~FlushDenormals() { __builtin_ia32_ldmxcsr(before_); }
#elif defined(__aarch64__)
  FlushDenormals() {
    __asm__ volatile("mrs %0, fpcr" : "=r"(before_));
    Set(before_ | (uint64_t{1} << 24));
  }
  ~FlushDenormals() { Set(before_); }
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  unsigned before_;
#elif defined(__aarch64__)
  static void Set(uint64_t fpcr) { __asm__ volatile("msr fpcr, %0" : : "r"(fpcr)); }
  uint64_t before_ = 0;
#endif
};

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
