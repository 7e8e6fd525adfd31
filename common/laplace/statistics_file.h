#pragma once
// LaplaceStatistics ⇄ a safetensors file: what a site writes and sends, and what a posterior is
// made of together with the adapter at which it was measured. docs/formats.md has the layout.

#include <filesystem>
#include <optional>

#include "common/base/result.h"
#include "common/laplace/statistics.h"

namespace weft {

struct StatisticsFile {
  LaplaceStatistics statistics;
  std::optional<double> precision;  // prior precision λ, where it was fitted
};

[[nodiscard]] Status WriteStatistics(const std::filesystem::path& path, const StatisticsFile& file);

/// From a file that anybody may have made: kInvalidArgument naming file and matrix for what is
/// missing, of another shape, not finite, or a precision that is not positive.
[[nodiscard]] Result<StatisticsFile> ReadStatistics(const std::filesystem::path& path);

}  // namespace weft
