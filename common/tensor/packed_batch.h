#pragma once
// PackedBatch: rows of tokens as tensors. Made by common/data, read by common/model; it lies below
// both. Plain data.
//
// Shape legend: N packed tokens, L labelled positions.

#include <cstdint>
#include <vector>

#include "common/tensor/torch.h"

namespace weft {

/// Rows laid end to end without padding; attention never crosses a row boundary.
struct PackedBatch {
  at::Tensor ids_N;                 // int64
  at::Tensor positions_N;           // int64, from 0 within each row
  std::vector<int64_t> row_starts;  // offsets of the rows in N, and N at the end
  at::Tensor label_at_L;            // int64: positions whose logits are needed
  at::Tensor labels_L;              // int64: the token to predict there, or the row's class
  at::Tensor types_N = {};  // int64: 1 in the second text of a pair; undefined: 0 everywhere
  [[nodiscard]] int64_t num_rows() const { return static_cast<int64_t>(row_starts.size()) - 1; }
};

}  // namespace weft
