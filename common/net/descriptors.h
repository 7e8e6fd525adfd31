#pragma once
// How many descriptors this process may have open. Each connected peer takes one of an aggregator;
// the limit that a login shell sets (often 1024) is far below what the system allows.

#include <cstdint>
#include <string_view>

#include "common/base/result.h"

namespace weft {

/// Raises the soft limit to the hard one, as far as that goes; what it is now.
uint64_t RaiseDescriptorLimit();

/// Raises the limit likewise. kResourceExhausted, with what was got and wanted and how to get more,
/// where it stays below `wanted`.
[[nodiscard]] Status NeedDescriptors(std::string_view what, uint64_t wanted);

}  // namespace weft
