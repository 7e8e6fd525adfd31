#pragma once
// What must hold of a run whatever goes wrong, checked while it is simulated: nothing that was
// acknowledged is lost, nothing is counted that should not be, every round ends in its time.

#include <map>
#include <memory>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "common/config/settings.h"
#include "common/runtime/run_events.h"
#include "common/wire/messages.h"

namespace weft::sim {

/// The rules about a run's ledger alone, from its start. kInternal naming the first row that breaks
/// one:
///   versions count up by one; a round is opened for the next version only, and ends (published or
///   missed) within its deadline of its opening or of the aggregator's last start
///   an update is accepted once in the run, and again only after it was lost, from a client that
///   was ever asked, at the rank it was asked for, at most cohort.max-staleness rounds late without
///   a robust rule the weights of a merge are those of the plan, and add up to its sum what a round
///   merged is exactly what was accepted for it, and at least its quorum the best version's loss
///   only falls while the same judge speaks after the run has finished nothing follows but a new
///   start
/// Rows tell the aggregator's wall clock: where that jumps (`clocks_jump`) deadlines are not looked
/// at.
[[nodiscard]] Status CheckRunLedger(std::span<const LedgerEvent> ledger, const Settings& settings,
                                    bool clocks_jump = false);

/// Of a relay's: versions are adopted and only go up, an update counts once and in the round after
/// the newest, and what is forwarded counts for the examples of just those.
[[nodiscard]] Status CheckRelayLedger(std::span<const LedgerEvent> ledger,
                                      const Settings& settings);

/// The rules about disks and messages as well. Calls come from the simulator's loop.
class InvariantChecker {
 public:
  explicit InvariantChecker(Settings settings, bool clocks_jump = false);
  ~InvariantChecker();

  /// The aggregator's disk as it is now: the ledger keeps its rules, has lost nothing since the
  /// last look, and the blobs it speaks of are there; an update that it calls lost was not kept.
  void Look(const Store& disk);
  /// A file of the aggregator's was damaged on purpose: it is made whole again, or not needed.
  void OnDamaged(const std::string& blob) { damaged_.insert(blob); }
  /// The aggregator sends this: a client is told that its update counts only when the ledger says
  /// so on disk.
  void OnSent(const ClientId& to, const Message& message, const Store& disk);

  /// The first rule that was broken, or ok.
  [[nodiscard]] const Status& status() const { return status_; }
  [[nodiscard]] uint64_t looks() const { return looks_; }

 private:
  void Break(const Status& why);
  [[nodiscard]] Status CheckKept(const std::vector<LedgerEvent>& ledger);
  /// Rows that no look has seen yet, against the rules.
  [[nodiscard]] Status CheckNew(const std::vector<LedgerEvent>& ledger);
  [[nodiscard]] Status CheckBlobs(const std::vector<LedgerEvent>& ledger, const Store& disk);

  struct Seen;  // the rows that were looked at, as events, and where they lead by the rules
  const Settings settings_;
  const std::unique_ptr<Seen> seen_;
  std::set<std::string> damaged_;                    // and not found whole since
  std::set<std::pair<uint64_t, std::string>> lost_;  // rows that call a damaged update lost
  Status status_;
  std::string last_hash_;  // of the newest row seen
  uint64_t last_seq_ = 0;
  uint64_t looks_ = 0;
};

}  // namespace weft::sim
