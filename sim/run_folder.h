#pragma once
// What a simulated aggregator had on its disk as a run folder, which every `weft runs` command
// reads as it does a daemon's.

#include <filesystem>

#include "common/runtime/store.h"

namespace weft::sim {

/// kFailedPrecondition if the folder holds a run already: two ledgers cannot be one.
[[nodiscard]] Status CheckNoRunIn(const std::filesystem::path& folder);

/// Writes blobs and ledger, the ledger last.
[[nodiscard]] Status WriteRunFolder(const Store& store, const std::filesystem::path& folder);

}  // namespace weft::sim
