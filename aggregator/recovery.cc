#include "aggregator/recovery.h"

#include <utility>

#include "common/base/str.h"

namespace weft {
namespace {

/// Folds one event after the other; events that only tell a story change nothing.
class Fold {
 public:
  explicit Fold(RunPosition& at) : at_(at) {}

  template <typename E>
  Status operator()(const E&) {
    return OkStatus();
  }
  Status operator()(const RunStarted& event) {
    at_.started = event;
    at_.settings_toml = event.settings_toml;
    return OkStatus();
  }
  Status operator()(const RunResumed& event) {
    if (!event.settings_toml.empty()) at_.settings_toml = event.settings_toml;
    at_.finished.reset();
    return OkStatus();
  }
  Status operator()(const RunFinished& event) {
    at_.finished = event;
    at_.misses = 0;
    return OkStatus();
  }
  Status operator()(const MemberJoined& event) {
    at_.members.insert(event.client);
    return OkStatus();
  }
  Status operator()(const MemberGone& event) {
    at_.members.erase(event.client);
    return OkStatus();
  }
  Status operator()(const RoundOpened& event) {
    WEFT_TRY(CheckRound(event.plan.round, "is opened"));
    at_.open = event;
    at_.attempts = event.attempt;
    at_.working.clear();
    for (const ClientPlan& client : event.plan.cohort) {
      if (!at_.accepted.contains(client.client)) Work(event.plan, client);
    }
    return OkStatus();
  }
  Status operator()(const UpdateAccepted& event) {
    WEFT_TRY(CheckRound(event.CountsIn(), "takes an update"));
    if (!at_.accepted.emplace(event.header.client, event).second) {
      return DataLoss(
          Str("client ", event.header.client, " is accepted twice in round ", event.CountsIn()));
    }
    at_.working.erase(event.header.client);
    return OkStatus();
  }
  Status operator()(const UpdateRefused& event) {
    at_.working.erase(event.client);
    return OkStatus();
  }
  Status operator()(const ClientDropped& event) {
    at_.working.erase(event.client);
    return OkStatus();
  }
  Status operator()(const UpdateLost& event) {
    WEFT_TRY(CheckRound(event.round, "loses an update"));
    if (at_.accepted.erase(event.client) == 0) {
      return DataLoss(Str("client ", event.client, " loses an update of round ", event.round,
                          " that was not accepted"));
    }
    if (!at_.open) return OkStatus();
    for (const ClientPlan& client : at_.open->plan.cohort) {
      if (client.client == event.client) Work(at_.open->plan, client);
    }
    return OkStatus();
  }
  Status operator()(const RoundMissed& event) {
    WEFT_TRY(CheckRound(event.round, "is missed"));
    at_.open.reset();
    ++at_.misses;
    return OkStatus();
  }
  Status operator()(const RoundPublished& event) {
    if (event.adopted) return Adopt(event);
    if (at_.published && event.version.number != at_.published->version.number + 1) {
      return DataLoss(Str("version ", event.version, " follows version ", at_.published->version));
    }
    // What a kept round was merged from goes with its updates, whatever later settings say.
    if (event.updates_kept && at_.published) at_.states.erase(at_.published->version);
    at_.merged_from.reset();
    if (at_.published && at_.open) {
      at_.merged_from = {
          .plan = at_.open->plan, .state_blob = at_.published->state.name, .updates = {}};
    }
    at_.norms.clear();
    for (const auto& [client, update] : at_.accepted) {
      at_.merged[client] = update.header.round;
      if (at_.merged_from) at_.merged_from->updates.push_back(update);
      at_.norms.push_back(update.update_norm);
    }
    BeginAfter(event);
    return OkStatus();
  }
  Status operator()(const UpdateForwarded& event) {
    WEFT_TRY(CheckRound(event.round, "is forwarded"));
    at_.forwarded = event;
    at_.open.reset();
    return OkStatus();
  }
  Status operator()(const PosteriorFitted& event) {
    WEFT_TRY(CheckRound(event.round, "measures"));
    at_.posterior = event;
    at_.open.reset();
    at_.attempts = at_.misses = 0;
    at_.accepted.clear();
    return OkStatus();
  }
  Status operator()(const EvalReported& event) {
    if (Newest(event.report.version)) at_.reports[event.report.client] = event.report;
    return OkStatus();
  }
  Status operator()(const ServerEvaluated& event) {
    if (Newest(event.version)) at_.server_evaluated = event;
    return OkStatus();
  }
  Status operator()(const BestRound& event) {
    at_.best = event;
    return OkStatus();
  }
  Status operator()(const BlobsRemoved& event) {
    for (const std::string& blob : event.blobs) {
      std::erase_if(at_.states, [&](const auto& entry) { return entry.second == blob; });
    }
    return OkStatus();
  }

 private:
  // Whichever version the aggregator above has come to.
  Status Adopt(const RoundPublished& event) {
    if (at_.published && event.version < at_.published->version) {
      return DataLoss(
          Str("version ", event.version, " is adopted after version ", at_.published->version));
    }
    if (at_.forwarded) {
      at_.norms.clear();
      for (const auto& [client, update] : at_.accepted) at_.norms.push_back(update.update_norm);
    }
    at_.forwarded.reset();
    at_.working.clear();
    BeginAfter(event);
    return OkStatus();
  }
  void BeginAfter(const RoundPublished& event) {
    at_.published = event;
    at_.states[event.version] = event.state.name;
    at_.open.reset();
    at_.attempts = at_.misses = 0;
    at_.accepted.clear();
    at_.reports.clear();
    at_.server_evaluated.reset();
  }
  void Work(const RoundPlan& plan, const ClientPlan& client) {
    ClientPlan& working = at_.working[client.client] = client;
    working.asked = AskedIn(plan, client);
  }
  [[nodiscard]] bool Newest(RoundId version) const {
    return at_.published && at_.published->version == version;
  }
  [[nodiscard]] Status CheckRound(RoundId round, std::string_view what) const {
    if (at_.published && round.number == at_.published->version.number + 1) return OkStatus();
    return DataLoss(Str("round ", round, " ", what, " after version ",
                        at_.published ? Str(at_.published->version) : std::string("none")));
  }

  RunPosition& at_;
};

}  // namespace

Status Advance(RunPosition& position, const LedgerEvent& row) {
  WEFT_TRY_ASSIGN(const RunEvent event, FromEvent(row));
  return std::visit(Fold(position), event).Within(Str("[ledger] row ", row.seq));
}

Result<RunPosition> Replay(const std::vector<LedgerEvent>& ledger) {
  RunPosition position;
  for (const LedgerEvent& row : ledger) WEFT_TRY(Advance(position, row));
  return position;
}

}  // namespace weft
