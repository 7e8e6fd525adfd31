#pragma once
// Which names a blob may have: they become paths below the run folder, so a name must not be able
// to leave it or to hit a file that is not a blob.

#include <string>

#include "common/base/status.h"

namespace weft {

inline constexpr size_t kBlobNameBytesMax = 1024;
inline constexpr size_t kBlobPartBytesMax = 240;  // of one path component; suffixes must still fit

inline constexpr const char* kPartSuffix = ".part";      // a partial blob
inline constexpr const char* kTempSuffix = ".weft-tmp";  // a blob being written

/// kInvalidArgument: empty, too long, absolute, a component "." or "..", empty or starting with
/// "run.db", a control character or backslash, an ending of ours, or a file of the run folder.
[[nodiscard]] Status CheckBlobName(const std::string& name);

}  // namespace weft
