#pragma once
// Writing model folders: weights beside the configuration and tokenizer files of the folder they
// came from.

#include <filesystem>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft::cli {

/// Writes model.safetensors from `weights` and copies from `source` whatever else makes a model
/// folder (config.json, generation_config.json, tokenizer files). kAlreadyExists when `out` is
/// `source`.
[[nodiscard]] Status WriteModelFolder(const std::vector<NamedTensor>& weights,
                                      const std::filesystem::path& source,
                                      const std::filesystem::path& out);

}  // namespace weft::cli
