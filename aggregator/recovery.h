#pragma once
// What a run's ledger says about where the run stands: the fold of its events. Pure.

#include <map>
#include <optional>
#include <set>
#include <vector>

#include "common/runtime/run_events.h"
#include "common/runtime/store.h"

namespace weft {

/// What a version was merged from: enough to merge it again.
struct MergedFrom {
  RoundPlan plan;                       // of the round's last try
  std::string state_blob;               // of the version before
  std::vector<UpdateAccepted> updates;  // by client name
};

struct RunPosition {
  std::optional<RunStarted> started;
  std::optional<RoundPublished> published;          // newest version
  std::optional<MergedFrom> merged_from;            // `published`; none for version 0
  std::optional<RoundOpened> open;                  // the round in progress
  uint32_t attempts = 0;                            // of the round after `published`
  uint32_t misses = 0;                              // of them, since the run was last given up
  std::map<ClientId, UpdateAccepted> accepted;      // for the round after `published`
  std::vector<double> norms;                        // of the updates in `published`
  std::map<ClientId, RoundId> merged;               // the round of the client's last merged update
  std::map<ClientId, ClientPlan> working;           // asked, and nothing came of it yet
  std::optional<UpdateForwarded> forwarded;         // a relay's, of the round after `published`
  std::optional<PosteriorFitted> posterior;         // of `published`
  std::map<ClientId, EvalReport> reports;           // of `published`
  std::optional<ServerEvaluated> server_evaluated;  // of `published`
  std::optional<BestRound> best;
  std::map<RoundId, std::string> states;  // state blobs that may be removed once they are old
  std::string settings_toml;              // the newest recorded
  std::set<ClientId> members;             // joined and not gone
  std::optional<RunFinished> finished;    // the last thing that happened
};

/// The next event of a ledger, in order: kDataLoss naming the row if it cannot follow those before
/// it.
[[nodiscard]] Status Advance(RunPosition& position, const LedgerEvent& row);

/// All of them.
[[nodiscard]] Result<RunPosition> Replay(const std::vector<LedgerEvent>& ledger);

}  // namespace weft
