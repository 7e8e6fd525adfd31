#pragma once
// Token rows → PackedBatch, and the cut of an optimiser batch into micro-batches. Stateless.

#include <cstddef>
#include <span>
#include <vector>

#include "common/data/token_rows.h"
#include "common/tensor/packed_batch.h"

namespace weft {

struct PackOptions {
  at::Device device = at::Device(at::kCPU);
  // Every row is filled up to the longest with `pad_id`. Attention is causal, so what follows a row
  // changes nothing in it: the loss is the same, the work is not. For comparison. Rows with a class
  // are never padded: an encoder would read the padding.
  bool pad = false;
  int32_t pad_id = 0;
};

/// Rows laid end to end; labels shifted: a row's token i is predicted at its token i − 1, its class
/// at its first token.
[[nodiscard]] PackedBatch Pack(std::span<const TokenRow* const> rows, const PackOptions& options);

/// Consecutive pieces of at most `rows_max` rows.
[[nodiscard]] std::vector<std::span<const TokenRow* const>> MicroBatches(
    std::span<const TokenRow* const> rows, int64_t rows_max);

}  // namespace weft
