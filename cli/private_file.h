#pragma once
// Files that only their owner may read.

#include <filesystem>
#include <string_view>

#include "common/base/status.h"

namespace weft::cli {

/// Writes a new file of mode 0600, never readable by others, not even for a moment; kAlreadyExists
/// if there is one.
[[nodiscard]] Status WritePrivateFile(const std::filesystem::path& path, std::string_view text);

}  // namespace weft::cli
