#pragma once
// Cuts a damaged ledger before its first bad row, so that its run can go on from there. What comes
// after that row is vouched for by nothing; it stays in a copy of the database beside it.

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/result.h"

namespace weft {

struct RepairReport {
  uint64_t rows = 0;   // that are whole, from the start
  std::string damage;  // what was wrong with the next one; empty: nothing, and nothing was done
  std::string kept;    // the damaged database's new name, in the run folder
};

/// kAlreadyExists while a process works on the folder, kDataLoss if not even the first row is
/// whole.
[[nodiscard]] Result<RepairReport> RepairLedger(const std::filesystem::path& folder);

}  // namespace weft
