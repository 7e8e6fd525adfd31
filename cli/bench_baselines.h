#pragma once
// What `weft bench merge` is measured against: the least that a merge of that size must do.

#include <cstdint>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"

namespace weft::cli {

/// "copy": every byte of the updates copied once. "qr-svd": for every layer QR of both stacks and
/// the SVD of their core, nothing else. "dense-svd": the SVD of one layer's dense sum, times the
/// layers. "gram": for every layer the products BᵀB and AAᵀ of the stacks, float64.
[[nodiscard]] const std::vector<std::string>& Baselines();

/// Median seconds over `repeat` runs, on as many threads as a merge takes. `rank` is that of a
/// stack, `bytes` those of all updates.
[[nodiscard]] double BaselineSeconds(const std::string& name, int64_t layers,
                                     const LinearSite& layer, int64_t rank, uint64_t bytes,
                                     int64_t repeat);

}  // namespace weft::cli
