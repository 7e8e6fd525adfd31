#pragma once
// Proves that a run folder is what its ledger says: the hash chain, the SHA-256 of every file the
// ledger names, and, where updates were kept, that each round's merge gives what was published.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "common/base/result.h"
#include "common/runtime/kept_rounds.h"
#include "common/runtime/store.h"

namespace weft {

struct VerifyReport {
  uint64_t events = 0;
  uint64_t files = 0;        // hashed and found as recorded
  uint64_t files_spent = 0;  // spool files of rounds that are over, rightly gone
  // Of the rounds that were merged: those merged again with the same outcome, and those whose
  // updates were not kept, of which only the files are vouched for.
  uint64_t certificates_recomputed = 0;
  uint64_t rounds_without_updates = 0;
  uint64_t rounds_measured = 0;  // by objective "laplace": nothing was merged
  std::string hash;              // of the newest event: vouches for all
};

/// Merges a round again and compares; a failure says what differs. The merge lies above this layer.
using RecheckRound = std::function<Status(const KeptRound& round, const BlobSource& blobs)>;

/// kDataLoss names the first bad row, or the first file (with the row that vouches for it) that is
/// missing or differs. Rows cut off at the end leave a chain that is whole in itself: `known_hash`,
/// a newest hash noted earlier, must be some row's. Empty: it is not asked for. Without `recheck`
/// no round is merged again.
[[nodiscard]] Result<VerifyReport> VerifyRun(const std::filesystem::path& folder,
                                             const std::string& known_hash = {},
                                             const RecheckRound& recheck = nullptr);

}  // namespace weft
