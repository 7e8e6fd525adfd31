// Sixteen Philox blocks side by side give 128 elements: each is made in registers and used at once.

#include "common/adapters/nola_basis_cpu.h"

#include <algorithm>
#include <array>

#include "common/tensor/cpu_vector.h"

namespace weft::cpu {
namespace {

constexpr int64_t kPerBlock = 8;                // elements of one Philox block
constexpr int64_t kGroup = kPerBlock * kLane;   // elements of sixteen
constexpr float kStep = 1.0F / 32768;           // 2/2¹⁶
constexpr float kLowest = 1.0F / 65536 - 1.0F;  // of the word 0

struct Words {
  BitLane word[4];
};

WEFT_INLINE BitLane HighProduct(BitLane a, uint32_t factor) {
  BitLane high{};
  for (int64_t l = 0; l < kLane; ++l) {
    high[l] = static_cast<uint32_t>((uint64_t{factor} * a[l]) >> 32);
  }
  return high;
}

WEFT_INLINE Words Philox7(Words c, uint32_t key0, uint32_t key1) {
#pragma GCC unroll 7
  for (int round = 0; round < 7; ++round) {
    const BitLane high0 = HighProduct(c.word[0], 0xD2511F53U), low0 = c.word[0] * 0xD2511F53U;
    const BitLane high1 = HighProduct(c.word[2], 0xCD9E8D57U), low1 = c.word[2] * 0xCD9E8D57U;
    c.word[0] = high1 ^ c.word[1] ^ key0;
    c.word[1] = low1;
    c.word[2] = high0 ^ c.word[3] ^ key1;
    c.word[3] = low0;
    key0 += 0x9E3779B9U;
    key1 += 0xBB67AE85U;
  }
  return c;
}

// Low and high half of a word as elements.
WEFT_INLINE Lane LowElement(BitLane word) {
  return __builtin_convertvector(reinterpret_cast<IntLane>(word & 0xFFFFU), Lane) * kStep + kLowest;
}
WEFT_INLINE Lane HighElement(BitLane word) {
  return __builtin_convertvector(reinterpret_cast<IntLane>(word >> 16), Lane) * kStep + kLowest;
}

// The sixteen blocks that begin at `element`, a multiple of kGroup, of basis `index`.
WEFT_INLINE Words Draw(uint64_t key, int64_t element, uint32_t index) {
  constexpr BitLane kIndex = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  const auto block = static_cast<uint64_t>(element / kPerBlock);
  const BitLane low = kIndex + static_cast<uint32_t>(block);
  const BitLane carry = reinterpret_cast<BitLane>(low < kIndex);  // −1 where the sum wrapped
  const Words counter{{low, BitLane{} + static_cast<uint32_t>(block >> 32) - carry,
                       BitLane{} + index, BitLane{}}};
  return Philox7(counter, static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32));
}

// Elements in the order they are drawn in: part p = 2·word + half, lane l ↔ element 8·l + p.
WEFT_INLINE Lane Part(const Words& words, int64_t p) {
  const BitLane word = words.word[p / 2];
  return p % 2 == 0 ? LowElement(word) : HighElement(word);
}

using Group = std::array<float, kGroup>;

WEFT_INLINE void StorePart(Group& group, int64_t p, Lane x) {
  for (int64_t l = 0; l < kLane; ++l) group[static_cast<size_t>(kPerBlock * l + p)] = x[l];
}

}  // namespace

WEFT_MULTIVERSION void FillBases(uint64_t key, uint32_t first, int64_t count, int64_t elements,
                                 int64_t begin, int64_t end, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t e = begin; e < end; e += kGroup) {
      const Words words = Draw(key, e, first + static_cast<uint32_t>(i));
      Group group;
      for (int64_t p = 0; p < kPerBlock; ++p) StorePart(group, p, Part(words, p));
      std::copy_n(group.begin(), std::min(kGroup, end - e), out + i * elements + e);
    }
  }
}

WEFT_MULTIVERSION void SumBases(uint64_t key, const float* coefficients, int64_t count,
                                int64_t begin, int64_t end, float* out) {
  for (int64_t e = begin; e < end; e += kGroup) {
    Lane sum[kPerBlock] = {};
    for (int64_t i = 0; i < count; ++i) {
      const Words words = Draw(key, e, static_cast<uint32_t>(i));
      for (int64_t p = 0; p < kPerBlock; ++p) sum[p] += Part(words, p) * coefficients[i];
    }
    Group group;
    for (int64_t p = 0; p < kPerBlock; ++p) StorePart(group, p, sum[p]);
    std::copy_n(group.begin(), std::min(kGroup, end - e), out + e);
  }
}

WEFT_MULTIVERSION void MultiplyBases(uint64_t key, const float* gradient, int64_t count,
                                     int64_t begin, int64_t end, float* out) {
  constexpr int64_t kGroups = kBasisRange / kGroup;
  Lane drawn_order[kGroups][kPerBlock];  // the gradient as elements are drawn; 0 behind the end
  const int64_t groups = (end - begin + kGroup - 1) / kGroup;
  for (int64_t g = 0; g < groups; ++g) {
    Group group{};
    const int64_t e = begin + g * kGroup;
    std::copy_n(gradient + e, std::min(kGroup, end - e), group.begin());
    for (int64_t p = 0; p < kPerBlock; ++p) {
      for (int64_t l = 0; l < kLane; ++l) {
        drawn_order[g][p][l] = group[static_cast<size_t>(kPerBlock * l + p)];
      }
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    Lane sum{};
    for (int64_t g = 0; g < groups; ++g) {
      const Words words = Draw(key, begin + g * kGroup, static_cast<uint32_t>(i));
      for (int64_t p = 0; p < kPerBlock; ++p) sum += Part(words, p) * drawn_order[g][p];
    }
    out[i] = Sum(sum);
  }
}

}  // namespace weft::cpu
