#pragma once
// The form of names that become parts of file names and labels of logs: those of runs and sites.

#include <string_view>

namespace weft {

/// 1 to limits::kPlainNameBytesMax letters, digits, '.', '_' or '-', beginning with a letter or
/// digit.
[[nodiscard]] bool IsPlainName(std::string_view name);

}  // namespace weft
