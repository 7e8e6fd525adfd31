#pragma once
// ForEachSite: work on the sites of a round on all cores.

#include <functional>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// Calls work(i, memory) for every i below count, on all cores, each with memory of its own. One
/// thread works on an index, torch's own ones are off: the bits do not depend on how many there
/// are. An exception of one is thrown to the caller when all have ended.
void ForEachSite(size_t count, const std::function<void(size_t site, StackMemory& memory)>& work);

}  // namespace weft
