#pragma once
// Model folders: their weights as stored, and writing weights beside the configuration and
// tokenizer files of the folder they came from.

#include <filesystem>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/formats/model_config.h"

namespace weft::cli {

/// The model's tensors under their canonical names, on the file's own pages. Copies of a tied head
/// and old buffers are left behind. Errors name the file and the tensor.
[[nodiscard]] Result<std::vector<NamedTensor>> StoredWeights(const std::filesystem::path& folder,
                                                             const ModelConfig& config);

/// Writes model.safetensors from `weights` and copies from `source` whatever else makes a model
/// folder (config.json, generation_config.json, tokenizer files). kAlreadyExists when `out` is
/// `source`.
[[nodiscard]] Status WriteModelFolder(const std::vector<NamedTensor>& weights,
                                      const std::filesystem::path& source,
                                      const std::filesystem::path& out);

}  // namespace weft::cli
