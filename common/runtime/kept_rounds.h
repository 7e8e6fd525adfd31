#pragma once
// KeptRounds: the rounds of a ledger that can be merged again, each with all that its merge took.
// Pure: a fold of events; whether the files are there is not its business.

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/runtime/run_events.h"

namespace weft {

/// A published round whose updates, and the state that they were merged into, stay in the folder.
struct KeptRound {
  uint64_t seq = 0;  // the row that published it
  RoundPublished published;
  std::string certificate;              // JSON as recorded: a later reader knows what was not
  RoundOpened opened;                   // its last try
  std::string state_blob;               // of the version before
  std::vector<UpdateAccepted> updates;  // that were merged, by client name
  std::string settings_toml;            // in effect when it was merged
};

class KeptRounds {
 public:
  /// Events in the ledger's order, with their rows.
  [[nodiscard]] Status Add(const LedgerEvent& row, const RunEvent& event);

  /// In order; without those of which a blob was taken away on record.
  [[nodiscard]] std::vector<const KeptRound*> rounds() const;
  /// Rounds that merged updates and did not keep them.
  [[nodiscard]] uint64_t without_updates() const { return merged_ - rounds().size(); }
  /// Rounds that measured the adapter (objective "laplace"): they merge no update.
  [[nodiscard]] uint64_t measured() const { return measured_; }

 private:
  [[nodiscard]] Status Publish(const LedgerEvent& row, const RoundPublished& event);

  std::string settings_toml_;
  RoundOpened opened_;
  std::map<ClientId, UpdateAccepted> accepted_;  // for the next version
  std::string state_blob_;                       // of the newest version
  std::set<std::string> removed_;
  std::vector<KeptRound> kept_;
  uint64_t merged_ = 0;
  uint64_t measured_ = 0;
};

}  // namespace weft
