#include "common/runtime/run_view.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>

#include "common/base/str.h"

namespace weft {
namespace {

// The row of that key, put in order if it is new.
template <typename Row, typename Key>
Row& RowOf(std::vector<Row>& rows, Key Row::*key, const Key& value) {
  const auto it =
      std::lower_bound(rows.begin(), rows.end(), value,
                       [key](const Row& row, const Key& wanted) { return row.*key < wanted; });
  if (it != rows.end() && (*it).*key == value) return *it;
  Row row;
  row.*key = value;
  return *rows.insert(it, std::move(row));
}

// Σ lossᵢ·tokensᵢ / Σ tokensᵢ over the clients that report one.
std::optional<double> WeightedLoss(const std::vector<ClientRow>& clients,
                                   std::optional<double> ClientRow::*loss,
                                   uint64_t ClientRow::*tokens) {
  double sum = 0;
  double weight = 0;
  for (const ClientRow& client : clients) {
    if (!(client.*loss)) continue;
    const auto w = static_cast<double>(client.*tokens);
    sum += *(client.*loss) * w;
    weight += w;
  }
  if (weight == 0) return std::nullopt;
  return sum / weight;
}

struct Folder {
  RunView& view;
  int64_t wall_us;

  RoundRow& Round(RoundId round) const {
    return RowOf(view.rounds, &RoundRow::round, round.number);
  }
  ClientRow& Client(RoundId round, const ClientId& client) const {
    return RowOf(Round(round).clients, &ClientRow::client, client.name);
  }
  // The counts of a round follow from its clients' states.
  void Recount(RoundId number) const {
    RoundRow& round = Round(number);
    const auto count = [&round](std::string_view state) {
      return static_cast<uint64_t>(
          std::count_if(round.clients.begin(), round.clients.end(),
                        [&](const ClientRow& client) { return client.state == state; }));
    };
    round.accepted = count("accepted");
    round.late = count("late");
    round.dropped = count("dropped");
    round.refused = count("refused");
    round.train_loss =
        WeightedLoss(round.clients, &ClientRow::train_loss, &ClientRow::label_tokens);
  }

  void operator()(const std::monostate&) const {}

  void operator()(const RunStarted& event) const {
    view.run = event.run.name;
    view.state = "starting";
    view.strategy = event.strategy;
    view.base_hash = event.base_hash;
    view.software = event.software;
    view.settings_toml = event.settings_toml;
    view.seed = event.seed;
    view.sites = event.sites;
    view.adapter = event.adapter;
    view.num_server_rounds = event.num_server_rounds;
    view.started_us = wall_us;
  }
  void operator()(const RunResumed& event) const {
    ++view.resumed;
    if (!event.settings_toml.empty()) view.settings_toml = event.settings_toml;
    // A run that failed or was stopped goes on when its daemon is started again.
    view.state = view.rounds.size() > 1 ? "running" : "starting";
    view.reason.clear();
    view.finished_us = 0;
    for (MemberRow& member : view.members) member.present = false;
  }
  void operator()(const MemberJoined& event) const {
    MemberRow& member = RowOf(view.members, &MemberRow::client, event.client.name);
    member.present = true;
    member.rank = event.rank;
    member.capabilities = event.capabilities;
    member.reason.clear();
  }
  void operator()(const MemberGone& event) const {
    MemberRow& member = RowOf(view.members, &MemberRow::client, event.client.name);
    member.present = false;
    member.reason = event.reason;
  }
  void operator()(const RoundOpened& event) const {
    view.state = "running";
    RoundRow& round = Round(event.plan.round);
    if (round.opened_us == 0) round.opened_us = wall_us;
    round.state = "open";
    round.measures = Measures(event.plan.training);
    round.attempts = event.attempt;
    round.cohort = event.plan.cohort.size();
    // A new attempt starts over; bytes already sent stay counted.
    std::vector<ClientRow> before = std::exchange(round.clients, {});
    for (const ClientPlan& plan : event.plan.cohort) {
      ClientRow& client = RowOf(round.clients, &ClientRow::client, plan.client.name);
      client.state = "asked";
      client.rank = plan.adapter.rank;
      for (const ClientRow& old : before) {
        if (old.client != client.client) continue;
        client.bytes_down = old.bytes_down;
        client.bytes_up = old.bytes_up;
      }
    }
    Recount(event.plan.round);
  }
  void operator()(const BundleSent& event) const {
    ClientRow& client = Client(event.round, event.client);
    if (client.state == "asked") client.state = "training";
    client.bytes_down += event.bytes;
    client.download_s = event.download_s;
  }
  void operator()(const UpdateAccepted& event) const {
    const UpdateHeader& header = event.header;
    ClientRow& client = Client(event.CountsIn(), header.client);
    client.state = "accepted";
    client.rounds_late = event.CountsIn().number - header.round.number;
    client.method = header.spec.method;
    client.rank = header.spec.rank;
    client.num_examples = header.num_examples;
    client.label_tokens = header.label_tokens;
    client.steps = header.steps;
    client.train_loss = header.train_loss;
    client.bytes_up += event.bytes;
    client.lora_bytes = event.lora_bytes;
    client.wait_s = header.times.wait_s;
    if (client.download_s == 0) client.download_s = header.times.download_s;
    client.train_s = header.times.train_s;
    client.upload_s = event.upload_s;
    client.admit_s = event.admit_s;
    client.update_norm = event.update_norm;
    client.reason.clear();
    Recount(event.CountsIn());
  }
  void operator()(const UpdateLost& event) const {
    ClientRow& client = Client(event.round, event.client);
    // As if asked for the first time, but that bytes already sent stay counted.
    const ClientRow before = std::exchange(client, {});
    client.client = before.client;
    client.state = "asked";
    client.rank = before.rank;
    client.bytes_down = before.bytes_down;
    client.bytes_up = before.bytes_up;
    client.reason = "its update was lost from the spool";
    Recount(event.round);
  }
  void operator()(const UpdateRefused& event) const {
    Outcome(event.round, event.client, "refused", event.code + ": " + event.reason);
  }
  void operator()(const UpdateLate& event) const {
    Outcome(event.round, event.client, "late", "came after the round had closed");
  }
  void operator()(const ClientDropped& event) const {
    Outcome(event.round, event.client, "dropped",
            event.reason + (event.phase.empty() ? "" : " (" + event.phase + ")"));
  }
  void Outcome(RoundId round, const ClientId& who, const char* state,
               const std::string& reason) const {
    ClientRow& client = Client(round, who);
    if (client.state == "accepted") return;  // a replay after its update was taken changes nothing
    client.state = state;
    client.reason = reason;
    Recount(round);
  }
  void operator()(const RoundPublished& event) const {
    RoundRow& round = Round(event.round);
    round.state = event.adopted && round.state.empty() ? "adopted" : "published";
    round.published_us = wall_us;
    round.adapter_sha256 = event.adapter_sha256;
    if (!event.adopted) {
      round.certificate = event.certificate;
      round.merge_s = event.merge_s;
    }
    round.peft_folder = event.peft_folder;
    round.reason.clear();
    for (ClientRow& client : round.clients) {
      if (client.state == "accepted" && !event.adopted) client.merge_s = event.merge_s;
      if (client.state == "asked" || client.state == "training") client.state = "carried";
    }
    view.published = event.version.number;
  }
  void operator()(const UpdateForwarded& event) const {
    RoundRow& round = Round(event.round);
    round.state = "forwarded";
    round.merge_s = event.merge_s;
    round.certificate.error_published = event.error;
    round.certificate.rank = event.header.spec.rank;
    round.reason.clear();
    for (ClientRow& client : round.clients) {
      if (client.state == "accepted") client.merge_s = event.merge_s;
    }
  }
  void operator()(const PosteriorFitted& event) const {
    RoundRow& round = Round(event.round);
    round.state = "measured";
    round.published_us = wall_us;
    round.merge_s = event.fit_s;
    round.reason.clear();
    view.posterior = event;
  }
  void operator()(const RoundMissed& event) const {
    RoundRow& round = Round(event.round);
    round.state = "failed";
    round.attempts = event.attempt;
    round.reason = event.reason;
  }
  void operator()(const EvalReported& event) const {
    const EvalReport& report = event.report;
    RoundRow& round = Round(report.version);
    ClientRow& client = Client(report.version, report.client);
    if (client.state.empty()) client.state = "evaluated";
    client.eval_loss = report.loss;
    client.eval_tokens = report.label_tokens;
    client.evaluate_s = report.evaluate_s;
    round.clients_loss =
        WeightedLoss(round.clients, &ClientRow::eval_loss, &ClientRow::eval_tokens);
    round.evaluators = static_cast<uint64_t>(
        std::count_if(round.clients.begin(), round.clients.end(),
                      [](const ClientRow& row) { return row.eval_loss.has_value(); }));
  }
  void operator()(const ServerEvaluated& event) const {
    Round(event.version).server_loss = event.loss;
    Round(event.version).server_metrics = event.metrics;
  }
  void operator()(const BestRound& event) const {
    for (RoundRow& round : view.rounds) round.best = round.round == event.version.number;
    view.best_round = event.version.number;
    view.best_loss = event.loss;
    view.best_by = event.by;
  }
  void operator()(const BlobsRemoved&) const {}
  void operator()(const RunFinished& event) const {
    view.state = "finished:" + event.state;
    view.reason = event.reason;
    view.finished_us = wall_us;
  }
};

}  // namespace

uint64_t RoundRow::BytesDown() const {
  uint64_t bytes = 0;
  for (const ClientRow& client : clients) bytes += client.bytes_down;
  return bytes;
}

uint64_t RoundRow::BytesUp() const {
  uint64_t bytes = 0;
  for (const ClientRow& client : clients) bytes += client.bytes_up;
  return bytes;
}

Status RunFold::Add(const LedgerEvent& event) {
  WEFT_TRY_ASSIGN(const RunEvent parsed, FromEvent(event));
  std::visit(Folder{view_, event.wall_us}, parsed);
  view_.last_us = event.wall_us;
  view_.events = event.seq;
  return OkStatus();
}

std::vector<RoundRow> RunFold::TakeOlder(size_t keep) {
  if (view_.rounds.size() <= keep) return {};
  const auto end = view_.rounds.end() - static_cast<std::ptrdiff_t>(keep);
  std::vector<RoundRow> older(std::make_move_iterator(view_.rounds.begin()),
                              std::make_move_iterator(end));
  view_.rounds.erase(view_.rounds.begin(), end);
  return older;
}

Result<RunReader> RunReader::Open(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(std::unique_ptr<LedgerDb> db, LedgerDb::OpenForReading(folder / kLedgerFile));
  return RunReader(std::move(db));
}

Result<std::vector<LedgerEvent>> RunReader::Poll() {
  WEFT_TRY_ASSIGN(std::vector<LedgerEvent> events, db_->ReadAfter(tail_));
  for (const LedgerEvent& event : events) WEFT_TRY(fold_.Add(event));
  return events;
}

Result<RunView> ReadRunView(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(RunReader reader, RunReader::Open(folder));
  WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> events, reader.Poll());
  return reader.view();
}

std::vector<ShippedRow> Shipped(const RunView& view) {
  std::map<std::pair<std::string, std::string>, ShippedRow> rows;
  for (const RoundRow& round : view.rounds) {
    if (round.measures) continue;
    for (const ClientRow& client : round.clients) {
      if (client.state != "accepted") continue;
      ShippedRow& row = rows[{client.client, client.method}];
      row.client = client.client;
      row.method = client.method;
      row.rank = client.rank;
      ++row.updates;
      row.bytes_up += client.bytes_up;
      row.lora_bytes += client.lora_bytes;
    }
  }
  std::vector<ShippedRow> shipped;
  for (auto& [key, row] : rows) shipped.push_back(std::move(row));
  return shipped;
}

}  // namespace weft
