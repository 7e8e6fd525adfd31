#pragma once
// The fused loops behind nola_basis.h on a CPU. They know no tensors. Any thread.

#include <cstdint>

namespace weft::cpu {

/// Elements that a call works through together; ranges begin at multiples of it.
inline constexpr int64_t kBasisRange = 4096;

/// out[i·elements + e] = element e of basis first + i, for e in [begin, end).
void FillBases(uint64_t key, uint32_t first, int64_t count, int64_t elements, int64_t begin,
               int64_t end, float* out);

/// out[e] = Σ_i coefficients[i]·b_i[e] for e in [begin, end).
void SumBases(uint64_t key, const float* coefficients, int64_t count, int64_t begin, int64_t end,
              float* out);

/// out[i] = Σ_e b_i[e]·gradient[e] over e in [begin, end); end − begin is at most kBasisRange.
void MultiplyBases(uint64_t key, const float* gradient, int64_t count, int64_t begin, int64_t end,
                   float* out);

}  // namespace weft::cpu
