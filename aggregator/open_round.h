#pragma once
// OpenRound: where each member of a round's cohort stands, and when that closes the round. Pure:
// told the time, it decides; what follows from it is RoundRunner's.

#include <map>
#include <string>
#include <vector>

#include "aggregator/jobs.h"
#include "common/config/settings.h"
#include "common/plan/round_plan.h"
#include "common/runtime/clock.h"

namespace weft {

enum class Standing {
  kWorking,    // offered to, or away for a moment
  kUploading,  // its update is queued, pulled or checked
  kAccepted,   // its update is on disk
  kRefused,    // its update was refused
  kFailed,     // it said that it cannot deliver
  kDropped,    // gone for too long; may come back while the round is open
};

struct Seat {
  ClientPlan plan;
  Standing standing = Standing::kWorking;
  std::string reason;  // of kRefused, kFailed, kDropped
  bool away = false;   // not connected
  Nanos away_since{0};
  SpooledUpdate update;  // offered, and once kAccepted: merged
};

class OpenRound {
 public:
  OpenRound(RoundPlan plan, uint32_t attempt, Nanos opened);

  [[nodiscard]] const RoundPlan& plan() const { return plan_; }
  /// The plan without cohort and evaluators: what it asks of everybody.
  [[nodiscard]] const RoundPlan& common() const { return common_; }
  [[nodiscard]] uint32_t attempt() const { return attempt_; }
  [[nodiscard]] Nanos opened() const { return opened_; }
  [[nodiscard]] Seat* Find(const ClientId& client);
  [[nodiscard]] const std::map<ClientId, Seat>& seats() const { return seats_; }

  void Accept(const ClientId& client, SpooledUpdate update, Nanos now);
  /// A seat that was accepted stays accepted.
  void Settle(const ClientId& client, Standing standing, std::string reason);
  void Away(const ClientId& client, Nanos now);
  /// Back: a dropped client may deliver after all.
  void Back(const ClientId& client);

  [[nodiscard]] size_t CountOf(Standing standing) const;
  /// Updates that close it at once: all of the cohort's, or as many as the buffer holds.
  [[nodiscard]] size_t Wanted(const CohortSettings& cohort) const;
  /// Updates without which it is missed.
  [[nodiscard]] size_t QuorumSize(const CohortSettings& cohort) const;
  /// Those who may still deliver.
  [[nodiscard]] std::vector<ClientId> Awaited() const;
  /// Away for longer than `patience` and not yet dropped.
  [[nodiscard]] std::vector<ClientId> LongAway(Nanos now, Nanos patience) const;
  /// Accepted updates, by client name.
  [[nodiscard]] std::vector<SpooledUpdate> Updates() const;

  enum class Decision { kWait, kClose, kMiss };
  [[nodiscard]] Decision Judge(const CohortSettings& cohort, Nanos now) const;
  /// "2 of 3 accepted; beta: NaN loss; gamma: awaited".
  [[nodiscard]] std::string Describe() const;

 private:
  RoundPlan plan_;
  RoundPlan common_;
  uint32_t attempt_;
  Nanos opened_;
  std::vector<Nanos> accepted_at_;  // ascending
  std::map<ClientId, Seat> seats_;
};

}  // namespace weft
