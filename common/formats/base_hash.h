#pragma once
// The identity of a base model, and its description as a file for machines without the weights.
//
// The hash is SHA-256 over this text of bytes, all numbers u64 little-endian:
//   "weft base model 1\n" · number of tensors · for each tensor, sorted by name:
//   length of name · name · length of dtype name · dtype name ("BF16") · number of dimensions ·
//   each dimension · number of bytes · bytes
// so it does not depend on how the tensors are spread over files, nor on their order in them.

#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/formats/safetensors.h"
#include "common/plan/base_description.h"

namespace weft {

/// 64 lower-case hexadecimal digits; `sorted_by_name` as SafetensorsFolder::tensors() has them.
[[nodiscard]] std::string HashTensors(std::span<const StoredTensor> sorted_by_name);

/// The hash of a model folder's weights. Reading gigabytes takes seconds, so the result is kept in
/// weft-base-hash.json beside them or, where that folder cannot be written, below
/// $XDG_CACHE_HOME/weft (default ~/.cache/weft), together with the names, sizes and modification
/// times of the weight files; when any of these differs the hash is computed anew. Errors are
/// SafetensorsFolder::Open's; failing to keep the result is none.
[[nodiscard]] Result<std::string> BaseHash(const std::filesystem::path& folder);

/// Hash, architecture and linear layers (lm_head last) of a model folder whose config and tensors
/// agree.
[[nodiscard]] Result<BaseDescription> DescribeBase(const std::filesystem::path& folder);

/// base.json: {"hash", "architecture", "sites": [{"path", "in", "out"}]}.
[[nodiscard]] std::string EncodeBaseDescription(const BaseDescription& base);
/// kInvalidArgument names file, field, got and wanted; sizes are checked against limits.h.
[[nodiscard]] Result<BaseDescription> ParseBaseDescription(std::string_view json,
                                                           std::string_view file);
[[nodiscard]] Status WriteBaseDescription(const std::filesystem::path& path,
                                          const BaseDescription& base);
[[nodiscard]] Result<BaseDescription> ReadBaseDescription(const std::filesystem::path& path);

}  // namespace weft
