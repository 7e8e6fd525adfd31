#pragma once
// The updates of one site as a merge looks at them, more than once: stacked in memory, or, for a
// rule that takes them as they pass and where the stack would be large, decoded anew each time a
// few clients at a time. Lives while its site is merged, on one thread.

#include <memory>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// Bytes of a stack from which on a rule that can do without is given parts of it, of about half as
/// many: what a merge holds then depends on the layers' sizes, not on how many clients there are.
inline constexpr int64_t kWholeStackBytesMax = int64_t{32} << 20;

/// Stacks lie in `memory`; `all` and `memory` must outlive what is returned.
[[nodiscard]] Result<std::unique_ptr<UpdateSource>> UpdatesOfSite(
    const UpdateSource& all, const LinearSite& layer, size_t site, StackMemory& memory,
    bool may_stream, int64_t whole_stack_bytes_max = kWholeStackBytesMax);

}  // namespace weft
