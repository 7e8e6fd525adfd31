#pragma once
// WeightedSum: the mean of many float32 matrices at the speed at which memory can be read.

#include <span>

#include "common/tensor/torch.h"

namespace weft {

/// scale · values, padded with zeros to the sum's shape: its place is the upper left corner.
struct WeightedMatrix {
  at::Tensor values;  // [r×c], float32 or float64
  double scale = 1;
};

/// Σ scale·values [rows×columns] in float64, in the order given: every element is the sum of
/// products that were rounded one by one, so that the bits are the same on every processor.
/// Values are read once, a block of all matrices at a time, while the block's sum stays in cache.
[[nodiscard]] at::Tensor WeightedSum(std::span<const WeightedMatrix> matrices, int64_t rows,
                                     int64_t columns);

}  // namespace weft
