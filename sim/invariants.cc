#include "sim/invariants.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "common/base/str.h"
#include "common/crypto/digest.h"

namespace weft::sim {
namespace {

// A round's end is noticed by a timer of one second; writing its events takes moments.
constexpr int64_t kSlackMicros = 3'000'000;

/// Folds the ledger by rules of its own: nothing here is the aggregator's code.
class Rules {
 public:
  Rules(const Settings& settings, bool clocks_jump)
      : settings_(settings), clocks_jump_(clocks_jump) {}

  Status Add(const LedgerEvent& row, const RunEvent& event) {
    now_us_ = row.wall_us;
    if (finished_ && !std::holds_alternative<RunResumed>(event)) {
      return Broken("the run had finished");
    }
    return std::visit(*this, event);
  }

  template <typename E>
  Status operator()(const E&) {
    return OkStatus();
  }

  Status operator()(const RunResumed&) {
    finished_ = false;
    since_us_ = now_us_;  // an open round's time runs anew
    return OkStatus();
  }

  Status operator()(const RunFinished&) {
    finished_ = true;  // a round that is open stays so: a new start goes on with it
    return OkStatus();
  }

  Status operator()(const RoundOpened& event) {
    if (!published_ || event.plan.round.number != version_ + 1) {
      return Broken(Str("round ", event.plan.round, " is opened after version ", version_));
    }
    if (open_) return Broken(Str("round ", event.plan.round, " is opened while one is open"));
    open_ = true;
    since_us_ = now_us_;
    deadline_us_ = static_cast<int64_t>(event.plan.deadline_s * 1e6);
    cohort_.clear();
    for (const ClientPlan& client : event.plan.cohort) {
      const RoundId asked = AskedIn(event.plan, client);
      const bool known = asked == event.plan.round || ever_asked_.contains({client.client, asked});
      if (!known) return Broken(Str(client.client, " was never asked in round ", asked));
      const auto late = static_cast<int64_t>(event.plan.round.number - asked.number);
      if (late > settings_.cohort.max_staleness) {
        return Broken(Str(client.client, " is ", late, " rounds late and still asked"));
      }
      ever_asked_.insert({client.client, asked});
      cohort_[client.client] = client.adapter;
      asked_[client.client] = {client.adapter, asked};
    }
    return OkStatus();
  }

  Status operator()(const UpdateAccepted& event) {
    const UpdateHeader& header = event.header;
    if (!open_ || event.CountsIn().number != version_ + 1) {
      return Broken(
          Str("an update for round ", event.CountsIn(), " is accepted after version ", version_));
    }
    const auto asked = asked_.find(header.client);
    if (asked == asked_.end() || asked->second != std::pair(header.spec, header.round) ||
        header.version.number + 1 != header.round.number) {
      return Broken(Str("the update of ", header.client, " was not asked for"));
    }
    if (merged_.contains({header.client, header.round}) ||
        !accepted_.emplace(header.client, header).second) {
      return Broken(Str("the update of ", header.client, " counts twice"));
    }
    return OkStatus();
  }

  Status operator()(const UpdateLost& event) {
    if (!open_ || event.round.number != version_ + 1) {
      return Broken(Str("an update of round ", event.round, " is lost after version ", version_));
    }
    if (accepted_.erase(event.client) == 0) {
      return Broken(Str("the update of ", event.client, " is lost but did not count"));
    }
    return OkStatus();
  }

  Status operator()(const RoundMissed& event) {
    WEFT_TRY(InTime("missed"));
    if (!open_ || event.round.number != version_ + 1) return Broken("a round that is not open");
    if (accepted_.size() >= Quorum()) return Broken("a round with its quorum is missed");
    open_ = false;
    return OkStatus();
  }

  Status operator()(const RoundPublished& event) {
    if (published_ && event.version.number != version_ + 1) {
      return Broken(Str("version ", event.version, " follows version ", version_));
    }
    if (event.version.number > 0) WEFT_TRY(Merged(event));
    for (const auto& [client, header] : accepted_) merged_.insert({client, header.round});
    published_ = true;
    version_ = event.version.number;
    open_ = false;
    accepted_.clear();
    asked_.clear();
    return OkStatus();
  }

  Status operator()(const PosteriorFitted& event) {
    WEFT_TRY(Counted(event.clients, Str("the posterior of version ", event.version)));
    if (event.version.number != version_) {
      return Broken(Str("a posterior of version ", event.version, " after version ", version_));
    }
    open_ = false;
    accepted_.clear();
    return OkStatus();
  }

  Status operator()(const BestRound& event) {
    if (event.by == best_by_ && !(event.loss < best_loss_)) {
      return Broken(Str("the best loss goes from ", best_loss_, " to ", event.loss));
    }
    best_by_ = event.by;
    best_loss_ = event.loss;
    return OkStatus();
  }

 private:
  Status Broken(const std::string& what) const { return Internal(what); }

  [[nodiscard]] size_t Quorum() const {
    const auto buffer = static_cast<size_t>(settings_.cohort.buffer);
    const size_t wanted = buffer == 0 ? cohort_.size() : std::min(buffer, cohort_.size());
    const double share = settings_.cohort.quorum * static_cast<double>(wanted);
    return static_cast<size_t>(std::max(1.0, std::ceil(share - 1e-9)));
  }

  Status InTime(std::string_view how) const {
    if (clocks_jump_ || now_us_ - since_us_ <= deadline_us_ + kSlackMicros) return OkStatus();
    return Broken(Str("a round is ", how, " ", static_cast<double>(now_us_ - since_us_) * 1e-6,
                      " s after it was opened, its deadline is ",
                      static_cast<double>(deadline_us_) * 1e-6, " s"));
  }

  Status Merged(const RoundPublished& event) const {
    std::vector<ClientId> merged;
    for (const auto& [client, norm] : event.certificate.client_norms) merged.push_back({client});
    WEFT_TRY(Counted(merged, Str("version ", event.version)));
    return WeightsAsPlanned(event);
  }

  // Without a robust rule each change counts by its client's share of the round's examples (tokens,
  // clients), those of τ rounds ago by (1 + τ)^−a of that: the weights that the certificate says
  // were used must be those, and nothing else can be where it names none.
  Status WeightsAsPlanned(const RoundPublished& event) const {
    if (settings_.strategy.robust.rule != "none" || settings_.strategy.robust.clip != "none") {
      return OkStatus();
    }
    double sum = 0;
    double planned = 0;
    for (const auto& [client, header] : accepted_) sum += Size(header);
    const auto& named = event.certificate.client_coefficients;
    for (const auto& [client, header] : accepted_) {
      const double late = event.version.number - header.round.number;
      const double weight =
          Size(header) / sum * std::pow(1 + late, -settings_.cohort.staleness_exponent);
      planned += weight;
      if (named.empty() && late == 0) continue;
      const auto found = std::find_if(named.begin(), named.end(), [&](const auto& entry) {
        return entry.first == client.name;
      });
      if (found == named.end() || std::abs(found->second - weight) > 1e-12) {
        return Broken(Str("the change of ", client, " counts ",
                          found == named.end() ? 0 : found->second, ", planned was ", weight));
      }
    }
    double used = named.empty() ? 1 : 0;
    for (const auto& [client, weight] : named) used += weight;
    if (std::abs(used - planned) <= 1e-12) return OkStatus();
    return Broken(Str("weights add up to ", used, ", planned was ", planned));
  }

  [[nodiscard]] double Size(const UpdateHeader& header) const {
    const CohortSettings& cohort = settings_.cohort;
    if (cohort.weighting == "uniform") return 1;
    if (cohort.weighting == "tokens") return static_cast<double>(header.label_tokens);
    return static_cast<double>(std::min<uint64_t>(header.num_examples, cohort.max_examples));
  }

  // What ends a round counts those who were accepted, each once, and enough of them.
  Status Counted(const std::vector<ClientId>& clients, const std::string& what) const {
    WEFT_TRY(InTime("published"));
    if (!open_) return Broken(Str(what, " without an open round"));
    const std::set<ClientId> counted(clients.begin(), clients.end());
    std::set<ClientId> accepted;
    for (const auto& [client, header] : accepted_) accepted.insert(client);
    if (counted != accepted || counted.size() != clients.size()) {
      return Broken(
          Str(what, " merged ", clients.size(), " updates, accepted were ", accepted_.size()));
    }
    if (counted.size() < Quorum()) {
      return Broken(Str(what, " has ", counted.size(), " updates, its quorum is ", Quorum()));
    }
    return OkStatus();
  }

  const Settings& settings_;
  const bool clocks_jump_;
  int64_t now_us_ = 0;
  int64_t since_us_ = 0;
  int64_t deadline_us_ = 0;
  bool finished_ = false;
  bool published_ = false;
  bool open_ = false;
  uint32_t version_ = 0;
  std::map<ClientId, AdapterSpec> cohort_;                     // of the open try
  std::map<ClientId, std::pair<AdapterSpec, RoundId>> asked_;  // of all tries at this round
  std::set<std::pair<ClientId, RoundId>> ever_asked_;
  std::set<std::pair<ClientId, RoundId>> merged_;  // updates in some version
  std::map<ClientId, UpdateHeader> accepted_;      // for the next version
  std::string best_by_;
  double best_loss_ = 0;
};

Status CheckBlob(const Store& disk, const std::string& name, const std::string& sha256) {
  const Result<Blob> blob = disk.ReadBlob(name);
  if (!blob.ok()) return Internal(Str("blob ", name, " of the ledger: ", blob.status().message()));
  if (Sha256Hex(blob->span()) == sha256) return OkStatus();
  return Internal(Str("blob ", name, " is not what the ledger says"));
}

}  // namespace

Status CheckRunLedger(std::span<const LedgerEvent> ledger, const Settings& settings,
                      bool clocks_jump) {
  Rules rules(settings, clocks_jump);
  for (const LedgerEvent& row : ledger) {
    WEFT_TRY_ASSIGN(const RunEvent event, FromEvent(row));
    WEFT_TRY(rules.Add(row, event).Within(Str("[invariant] row ", row.seq, " ", row.kind)));
  }
  return OkStatus();
}

namespace {

// What a relay's ledger says, event by event.
class RelayRules {
 public:
  explicit RelayRules(uint64_t max_examples) : max_examples_(max_examples) {}

  template <typename E>
  Status operator()(const E&) {
    return OkStatus();
  }
  Status operator()(const UpdateAccepted& event) {
    if (event.CountsIn().number != version_ + 1) {
      return Internal(Str("an update of round ", event.CountsIn(), " after version ", version_));
    }
    if (!accepted_.emplace(event.header.client, event.header).second) {
      return Internal(Str("the update of ", event.header.client, " counts twice"));
    }
    return OkStatus();
  }
  Status operator()(const UpdateLost& event) {
    if (accepted_.erase(event.client) == 1) return OkStatus();
    return Internal(Str("the update of ", event.client, " is lost but did not count"));
  }
  Status operator()(const UpdateForwarded& event) {
    uint64_t examples = 0;
    for (const auto& [client, header] : accepted_) {
      examples += std::min(header.num_examples, max_examples_);
    }
    if (event.round.number != version_ + 1 || accepted_.empty()) {
      return Internal(Str("round ", event.round, " is forwarded after version ", version_, " with ",
                          accepted_.size(), " updates"));
    }
    if (event.header.num_examples == examples) return OkStatus();
    return Internal(Str("what is forwarded counts for ", event.header.num_examples,
                        " examples, its members' updates for ", examples));
  }
  Status operator()(const RoundPublished& event) {
    if (!event.adopted) return Internal("a relay publishes a version of its own");
    if (published_ && event.version.number < version_) {
      return Internal(Str("version ", event.version, " is adopted after version ", version_));
    }
    published_ = true;
    version_ = event.version.number;
    accepted_.clear();
    return OkStatus();
  }

 private:
  const uint64_t max_examples_;
  bool published_ = false;
  uint32_t version_ = 0;
  std::map<ClientId, UpdateHeader> accepted_;  // for the round after the version
};

}  // namespace

Status CheckRelayLedger(std::span<const LedgerEvent> ledger, const Settings& settings) {
  RelayRules rules(settings.cohort.max_examples);
  for (const LedgerEvent& row : ledger) {
    WEFT_TRY_ASSIGN(const RunEvent event, FromEvent(row));
    WEFT_TRY(std::visit(rules, event).Within(Str("[invariant] row ", row.seq, " ", row.kind)));
  }
  return OkStatus();
}

struct InvariantChecker::Seen {
  Rules rules;
  std::vector<RunEvent> events;
};

InvariantChecker::InvariantChecker(Settings settings, bool clocks_jump)
    : settings_(std::move(settings)),
      seen_(std::make_unique<Seen>(Seen{Rules(settings_, clocks_jump), {}})) {}

InvariantChecker::~InvariantChecker() = default;

void InvariantChecker::Break(const Status& why) {
  if (status_.ok() && !why.ok()) status_ = why;
}

Status InvariantChecker::CheckKept(const std::vector<LedgerEvent>& ledger) {
  if (last_seq_ > 0 && (ledger.size() < last_seq_ || ledger[last_seq_ - 1].hash != last_hash_)) {
    return Internal(Str("[invariant] the ledger had ", last_seq_, " rows, of which some are gone"));
  }
  if (ledger.empty()) return OkStatus();
  last_seq_ = ledger.size();
  last_hash_ = ledger.back().hash;
  return OkStatus();
}

// Rows seen before are what they were: CheckKept looked at their hash.
Status InvariantChecker::CheckNew(const std::vector<LedgerEvent>& ledger) {
  for (size_t i = seen_->events.size(); i < ledger.size(); ++i) {
    const LedgerEvent& row = ledger[i];
    WEFT_TRY_ASSIGN(RunEvent event, FromEvent(row));
    WEFT_TRY(seen_->rules.Add(row, event).Within(Str("[invariant] row ", row.seq, " ", row.kind)));
    seen_->events.push_back(std::move(event));
  }
  return OkStatus();
}

Status InvariantChecker::CheckBlobs(const std::vector<LedgerEvent>& ledger, const Store& disk) {
  std::map<std::string, std::string> wanted;  // name → SHA-256
  std::map<uint32_t, std::pair<std::string, std::string>> states;
  std::vector<std::string> spool;
  uint32_t newest = 0;
  std::optional<uint32_t> best;  // none where nobody evaluates
  for (size_t i = 0; i < seen_->events.size(); ++i) {
    const LedgerEvent& row = ledger[i];
    const RunEvent& event = seen_->events[i];
    if (const auto* published = std::get_if<RoundPublished>(&event)) {
      newest = published->version.number;
      states[newest] = {published->state.name, published->state.sha256};
      if (published->updates_kept) {
        const auto before = states.find(newest - 1);
        if (before != states.end()) wanted.insert(before->second);
      } else {
        for (const std::string& name : spool) wanted.erase(name);
      }
      spool.clear();
    } else if (const auto* fitted = std::get_if<PosteriorFitted>(&event)) {
      for (const std::string& name : spool) wanted.erase(name);
      spool.clear();
      wanted[fitted->file.name] = fitted->file.sha256;
    } else if (const auto* accepted = std::get_if<UpdateAccepted>(&event)) {
      wanted[accepted->blob] = accepted->header.payload_sha256;
      spool.push_back(accepted->blob);
    } else if (const auto* lost = std::get_if<UpdateLost>(&event)) {
      // A ledger may say so, but nobody takes files from a simulated disk: the aggregator did.
      if (damaged_.erase(lost->blob) + lost_.count({row.seq, lost->blob}) > 0) {
        lost_.insert({row.seq, lost->blob});
        wanted.erase(lost->blob);
        continue;
      }
      return Internal(Str("[invariant] row ", row.seq, " ", row.kind, ": blob ", lost->blob, " of ",
                          lost->client, " was on disk when its update was accepted"));
    } else if (const auto* round = std::get_if<BestRound>(&event)) {
      best = round->version.number;
    }
  }
  for (const uint32_t version : {newest, best.value_or(newest)}) {
    if (const auto state = states.find(version); state != states.end()) {
      wanted.insert(state->second);
    }
  }
  for (const auto& [name, sha256] : wanted) {
    const Status whole = CheckBlob(disk, name, sha256);
    if (whole.ok()) damaged_.erase(name);
    if (!damaged_.contains(name)) WEFT_TRY(whole.Within("[invariant]"));
  }
  return OkStatus();
}

void InvariantChecker::Look(const Store& disk) {
  ++looks_;
  const Result<std::vector<LedgerEvent>> ledger = disk.ReadLedger();
  if (!ledger.ok()) return Break(ledger.status().Within("[invariant]"));
  const auto look = [&]() -> Status {
    WEFT_TRY(CheckKept(*ledger));
    WEFT_TRY(CheckNew(*ledger));
    return CheckBlobs(*ledger, disk);
  };
  Break(look());
}

void InvariantChecker::OnSent(const ClientId& to, const Message& message, const Store& disk) {
  const auto* verdict = std::get_if<UpdateVerdict>(&message);
  if (verdict == nullptr || verdict->code != Code::kOk) return;
  Look(disk);
  for (const RunEvent& event : seen_->events) {
    const auto* accepted = std::get_if<UpdateAccepted>(&event);
    if (accepted != nullptr && accepted->header.client == to &&
        accepted->header.round == verdict->round) {
      return;
    }
  }
  Break(Internal(Str("[invariant] ", to, " is told that its update of round ", verdict->round,
                     " counts, but the ledger on disk does not say so")));
}

}  // namespace weft::sim
