#pragma once
// NOLA's frozen random bases (Koohpayegani et al. 2024), from our own counter-based generator:
// basis i, element e of a key is the same number on every machine, device and number of threads,
// whatever k is, so a basis is named by its key and never travels.
//
// A basis element is uniform on (−1, 1): (2u + 1)/2¹⁶ − 1 for a 16-bit word u, exact in float32.
// The words are those of Philox4x32 with 7 rounds (Salmon et al., SC 2011, who find no failure in
// BigCrush at 7), counter (e div 8 low, high, i, 0), in the order low half, high half of each of
// the four words.
//
// Shape legend: K bases, E elements of one (rank × side, row-major).

#include <cstdint>
#include <string_view>

#include "common/tensor/torch.h"

namespace weft {

/// The generator's name and version, as specs carry it: another name, other numbers.
inline constexpr std::string_view kNolaGenerator = "philox4x32-7-u16";

/// Index of a basis beside the K of the sum: NOLA's frozen offset A₀.
inline constexpr uint32_t kOffsetBasis = 0xFFFFFFFF;

/// Bases first … first + count − 1 as float32 [count×E] on `device`.
[[nodiscard]] at::Tensor BasisMatrix(uint64_t key, uint32_t first, int64_t count, int64_t elements,
                                     at::Device device);

/// Σ_i c_i·b_i [E] for coefficients c [K], in their type (float32 or float64) and on their device;
/// differentiable in c: ∂/∂c_i = ⟨b_i, ∂/∂sum⟩. Never holds more than a few bases: they are made
/// anew in both passes.
[[nodiscard]] at::Tensor BasisSum(uint64_t key, const at::Tensor& coefficients_K, int64_t elements);

/// BasisMatrix from tensor operations alone, as devices without the fused loops run it.
[[nodiscard]] at::Tensor BasisMatrixAten(uint64_t key, uint32_t first, int64_t count,
                                         int64_t elements, at::Device device);

}  // namespace weft
