#pragma once
// The folder that --out names, tried before the work whose result goes there.

#include <filesystem>

#include "common/base/status.h"

namespace weft::cli {

/// Makes the folder where it is missing, and writes and removes a file in it. kAlreadyExists when
/// it is `model`, the folder of the base model: nothing of ours may change what others read there.
[[nodiscard]] Status PrepareOutFolder(const std::filesystem::path& out,
                                      const std::filesystem::path& model);

}  // namespace weft::cli
