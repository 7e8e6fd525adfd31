#pragma once
// WeightedSum: the mean of many float32 matrices at the speed at which memory can be read.

#include <cstdint>
#include <vector>

#include "common/tensor/torch.h"

namespace weft {

/// Σ scale·values in float64, in the order given; what is smaller than the largest of them is
/// padded with zeros, its place is the upper left corner. Every element is the sum of products that
/// were rounded one by one, so that the bits are the same on every processor. Values are read once,
/// a block of a few matrices at a time, while the block's sum stays in cache: up to 16 MiB of
/// matrices are held for that, however many there are.
class WeightedSum {
 public:
  /// Of at least that size. It grows where it must, which costs a copy.
  WeightedSum(int64_t rows, int64_t columns);

  /// `values` [r×c], float32 or float64; not to be changed before Take.
  void Add(const at::Tensor& values, double scale);
  /// The sum [rows×columns], on the CPU; nothing may be added afterwards.
  [[nodiscard]] at::Tensor Take();

 private:
  struct Matrix {
    at::Tensor values;
    double scale;
  };
  class Block;
  void AddHeld();
  void GrowTo(int64_t rows, int64_t columns);

  at::Tensor sum_RC_;
  std::vector<Matrix> held_;
  int64_t held_bytes_ = 0;
};

}  // namespace weft
