#pragma once
// LaplaceStatistics ⇄ a safetensors file: what a site writes and sends, and what a posterior is
// made of together with the adapter at which it was measured. docs/formats.md has the layout.

#include <filesystem>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/laplace/statistics.h"

namespace weft {

struct StatisticsFile {
  LaplaceStatistics statistics;
  std::optional<double> precision;  // prior precision λ, where it was fitted
};

/// The file's bytes: what travels in place of an update when a run measures its adapter.
[[nodiscard]] Result<Blob> EncodeStatistics(const StatisticsFile& file);
/// ReadStatistics of bytes in memory; `name` stands in errors.
[[nodiscard]] Result<StatisticsFile> DecodeStatistics(const Blob& bytes, const std::string& name);

[[nodiscard]] Status WriteStatistics(const std::filesystem::path& path, const StatisticsFile& file);

/// From a file that anybody may have made: kInvalidArgument naming file and matrix for what is
/// missing, of another shape, not finite, or a precision that is not positive.
[[nodiscard]] Result<StatisticsFile> ReadStatistics(const std::filesystem::path& path);

}  // namespace weft
