#pragma once
// Proves that a run folder is what its ledger says: the hash chain, and the SHA-256 of every file
// the ledger names.

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/result.h"

namespace weft {

struct VerifyReport {
  uint64_t events = 0;
  uint64_t files = 0;        // hashed and found as recorded
  uint64_t files_spent = 0;  // spool files of rounds that are over, rightly gone
  std::string hash;          // of the newest event: vouches for all
};

/// kDataLoss names the first bad row, or the first file (with the row that vouches for it) that is
/// missing or differs. Rows cut off at the end leave a chain that is whole in itself: `known_hash`,
/// a newest hash noted earlier, must be some row's. Empty: it is not asked for.
[[nodiscard]] Result<VerifyReport> VerifyRun(const std::filesystem::path& folder,
                                             const std::string& known_hash = {});

}  // namespace weft
