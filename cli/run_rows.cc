#include "cli/run_rows.h"

#include <cmath>

#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/plan/json.h"

namespace weft::cli {
namespace {

using Json = nlohmann::ordered_json;

Json OrNull(const std::optional<double>& value) {
  // JSON has no NaN; a diverged loss is null with the client's state telling why.
  return value && std::isfinite(*value) ? Json(*value) : Json(nullptr);
}

std::string Dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// Text that our own writer made.
Json Parsed(const std::string& text) { return Json::parse(text, nullptr, false); }

Json Named(const Metrics& metrics) {
  Json object = Json::object();
  for (const auto& [name, value] : metrics) object[name] = value;
  return object;
}

Json ToObject(const RoundRow& round, const ClientRow& c) {
  return {{"round", round.round},
          {"client", c.client},
          {"state", c.state},
          {"method", c.method},
          {"rank", c.rank},
          {"num_examples", c.num_examples},
          {"label_tokens", c.label_tokens},
          {"steps", c.steps},
          {"rounds_late", c.rounds_late},
          {"train_loss", OrNull(c.train_loss)},
          {"eval_loss", OrNull(c.eval_loss)},
          {"bytes_down", c.bytes_down},
          {"bytes_up", c.bytes_up},
          {"lora_bytes", c.lora_bytes},
          {"wait_s", c.wait_s},
          {"download_s", c.download_s},
          {"train_s", c.train_s},
          {"upload_s", c.upload_s},
          {"admit_s", c.admit_s},
          {"merge_s", c.merge_s},
          {"evaluate_s", c.evaluate_s},
          {"update_norm", OrNull(c.update_norm)},
          {"reason", c.reason}};
}

Json ToObject(const RoundRow& r) {
  Json clients = Json::array();
  for (const ClientRow& client : r.clients) clients.push_back(ToObject(r, client));
  return {{"round", r.round},
          {"state", r.state},
          {"attempts", r.attempts},
          {"cohort", r.cohort},
          {"accepted", r.accepted},
          {"late", r.late},
          {"dropped", r.dropped},
          {"refused", r.refused},
          {"train_loss", OrNull(r.train_loss)},
          {"eval_loss", OrNull(r.clients_loss)},
          {"evaluators", r.evaluators},
          {"server_loss", OrNull(r.server_loss)},
          {"server_metrics", Named(r.server_metrics)},
          {"best", r.best},
          {"adapter_sha256", r.adapter_sha256},
          {"peft_folder", r.peft_folder},
          {"bytes_down", r.BytesDown()},
          {"bytes_up", r.BytesUp()},
          {"merge_s", r.merge_s},
          {"opened_us", r.opened_us},
          {"published_us", r.published_us},
          {"reason", r.reason},
          {"certificate", Parsed(ToJson(r.certificate))},
          {"clients", clients}};
}

Json ToObject(const ListedRun& run) {
  const RunView& v = run.view;
  Json members = Json::array();
  for (const MemberRow& m : v.members) {
    members.push_back({{"client", m.client},
                       {"present", m.present},
                       {"rank", m.rank},
                       {"device", m.capabilities.device},
                       {"memory_mb", m.capabilities.memory_mb},
                       {"num_examples", m.capabilities.num_examples},
                       {"eval_examples", m.capabilities.eval_examples},
                       {"reason", m.reason}});
  }
  return {{"folder", run.folder.string()},
          {"run", v.run},
          {"state", v.state},
          {"reason", v.reason},
          {"aggregator_pid", run.aggregator ? Json(*run.aggregator) : Json(nullptr)},
          {"strategy", v.strategy},
          {"seed", v.seed},
          {"num_server_rounds", v.num_server_rounds},
          {"published", v.published},
          {"resumed", v.resumed},
          {"best_round", v.best_round ? Json(*v.best_round) : Json(nullptr)},
          {"best_loss", OrNull(v.best_loss)},
          {"posterior", Parsed(PosteriorJson(v))},
          {"base_hash", v.base_hash},
          {"rank", v.adapter.rank},
          {"sites", v.sites},
          {"software", v.software},
          {"events", v.events},
          {"started_us", v.started_us},
          {"finished_us", v.finished_us},
          {"members", members},
          {"shipped", Parsed(ShippedJson(v))}};
}

Cell Losses(const std::optional<double>& loss) { return Cell::Number(loss, 4); }

std::string Short(const std::string& hash) { return hash.substr(0, 12); }

Cell Hash(const std::string& hash) { return hash.empty() ? Cell("-") : Cell(Short(hash), hash); }

Cell Aggregator(const std::optional<int64_t>& pid) { return pid ? Cell::Integer(*pid) : Cell("-"); }

struct Teller {
  std::string operator()(const std::monostate&) const { return ""; }
  std::string operator()(const RunStarted& e) const {
    return Str("run ", e.run, " started: ", e.strategy, ", ", e.num_server_rounds, " rounds, seed ",
               e.seed, ", ", e.sites, " sites");
  }
  std::string operator()(const RunResumed& e) const { return Str("resumed at round ", e.round); }
  std::string operator()(const MemberJoined& e) const {
    return Str(e.client, " joined: ", e.capabilities.device, ", rank ", e.rank, ", ",
               e.capabilities.num_examples, " examples");
  }
  std::string operator()(const MemberGone& e) const {
    return Str(e.client, " is gone: ", e.reason);
  }
  std::string operator()(const RoundOpened& e) const {
    return Str("round ", e.plan.round, " opened: ", e.plan.cohort.size(), " clients, attempt ",
               e.attempt);
  }
  std::string operator()(const BundleSent& e) const {
    return Str("round ", e.round, ": ", e.client, " has its adapter, ",
               Cell::Bytes(e.bytes).terminal, " in ", Cell::Seconds(e.download_s).terminal);
  }
  std::string operator()(const UpdateAccepted& e) const {
    const uint32_t late = e.CountsIn().number - e.header.round.number;
    return Str("round ", e.CountsIn(), ": ", e.header.client, " accepted",
               late > 0 ? Str(", ", late, " rounds late") : "", ": loss ",
               Losses(e.header.train_loss).terminal, ", ", e.header.num_examples, " examples, ",
               Cell::Bytes(e.bytes).terminal, ", norm ", Cell::Number(e.update_norm, 4).terminal);
  }
  std::string operator()(const UpdateLost& e) const {
    return Str("round ", e.round, ": the update of ", e.client, " is gone from ", e.blob,
               ", it is asked for again");
  }
  std::string operator()(const UpdateRefused& e) const {
    return Str("round ", e.round, ": ", e.client, " refused: ", e.code, ": ", e.reason);
  }
  std::string operator()(const UpdateLate& e) const {
    return Str("round ", e.round, ": ", e.client, " came too late");
  }
  std::string operator()(const ClientDropped& e) const {
    return Str("round ", e.round, ": ", e.client, " dropped in ", e.phase, ": ", e.reason);
  }
  std::string operator()(const RoundPublished& e) const {
    if (e.adopted) {
      return Str("version ", e.version, " adopted from above: adapter ", Short(e.adapter_sha256));
    }
    return Str("round ", e.round, " published: adapter ", Short(e.adapter_sha256), ", error ",
               Cell::Small(e.certificate.error_published).terminal, ", merged in ",
               Cell::Seconds(e.merge_s).terminal);
  }
  std::string operator()(const UpdateForwarded& e) const {
    return Str("round ", e.round, " forwarded: rank ", e.header.spec.rank, ", ",
               e.header.num_examples, " examples, ", Cell::Bytes(e.file.bytes).terminal, ", error ",
               Cell::Small(e.error).terminal, ", merged in ", Cell::Seconds(e.merge_s).terminal);
  }
  std::string operator()(const PosteriorFitted& e) const {
    return Str("posterior of version ", e.version, ": precision ",
               Cell::Number(e.precision, 4).terminal, ", of ", e.examples, " examples of ",
               e.clients.size(), " clients, in ", e.file.name);
  }
  std::string operator()(const RoundMissed& e) const {
    return Str("round ", e.round, " failed in attempt ", e.attempt, ": ", e.reason);
  }
  std::string operator()(const EvalReported& e) const {
    return Str("round ", e.report.version, ": ", e.report.client, " evaluates: loss ",
               Losses(e.report.loss).terminal, " on ", e.report.label_tokens, " tokens");
  }
  std::string operator()(const ServerEvaluated& e) const {
    return Str("round ", e.version, ": aggregator evaluates: loss ", Losses(e.loss).terminal,
               " on ", e.label_tokens, " tokens");
  }
  std::string operator()(const BestRound& e) const {
    return Str("round ", e.version, " is the best so far: loss ", Losses(e.loss).terminal,
               e.by.empty() ? "" : " by " + e.by);
  }
  std::string operator()(const BlobsRemoved& e) const {
    return Str(e.blobs.size(), " files removed: ", e.reason);
  }
  std::string operator()(const RunFinished& e) const {
    return Str("run finished: ", e.state, e.reason.empty() ? "" : ": " + e.reason);
  }
};

}  // namespace

Table RunsTable(const std::vector<ListedRun>& runs) {
  Table table({{"FOLDER"},
               {"RUN"},
               {"STATE"},
               {"ROUND", true},
               {"MEMBERS", true},
               {"STRATEGY"},
               {"BEST_LOSS", true},
               {"BEST_ROUND", true},
               {"STARTED_UTC"},
               {"AGGREGATOR", true}});
  for (const ListedRun& run : runs) {
    const RunView& v = run.view;
    const auto present = std::count_if(v.members.begin(), v.members.end(),
                                       [](const MemberRow& member) { return member.present; });
    table.Add({run.folder.string(), v.run.empty() ? "-" : v.run, v.state,
               Str(v.published, "/", v.num_server_rounds), Cell::Integer(present),
               v.strategy.empty() ? "-" : v.strategy, Losses(v.best_loss),
               v.best_round ? Cell::Integer(*v.best_round) : Cell("-"), Cell::Time(v.started_us),
               Aggregator(run.aggregator)});
  }
  return table;
}

Table RoundsTable(const RunView& view) {
  Table table({{"ROUND", true},
               {"STATE"},
               {"ACCEPTED", true},
               {"LATE", true},
               {"DROPPED", true},
               {"TRAIN_LOSS", true},
               {"EVAL_LOSS", true},
               {"SERVER_LOSS", true},
               {"BEST"},
               {"RANK", true},
               {"ERROR", true},
               {"DOWN", true},
               {"UP", true},
               {"MERGE", true},
               {"TIME", true},
               {"ADAPTER"},
               {"REASON"}});
  for (const RoundRow& r : view.rounds) {
    const bool timed = r.opened_us != 0 && r.published_us != 0;
    table.Add({Cell::Integer(r.round), r.state.empty() ? "-" : r.state,
               Str(r.accepted, "/", r.cohort), Cell::Integer(static_cast<int64_t>(r.late)),
               Cell::Integer(static_cast<int64_t>(r.dropped + r.refused)), Losses(r.train_loss),
               Losses(r.clients_loss), Losses(r.server_loss), r.best ? "*" : "-",
               Cell::Integer(r.certificate.rank), Cell::Small(r.certificate.error_published),
               Cell::Bytes(r.BytesDown()), Cell::Bytes(r.BytesUp()), Cell::Seconds(r.merge_s),
               timed ? Cell::Seconds(static_cast<double>(r.published_us - r.opened_us) * 1e-6)
                     : Cell("-"),
               Hash(r.adapter_sha256), r.reason.empty() ? "-" : r.reason});
  }
  return table;
}

Table ClientsTable(const RunView& view, std::optional<uint32_t> round) {
  Table table({{"ROUND", true},
               {"CLIENT"},
               {"STATE"},
               {"RANK", true},
               {"SAMPLES", true},
               {"TRAIN_LOSS", true},
               {"EVAL_LOSS", true},
               {"DOWN", true},
               {"UP", true},
               {"WAIT", true},
               {"DOWNLOAD", true},
               {"TRAIN", true},
               {"UPLOAD", true},
               {"ADMIT", true},
               {"MERGE", true},
               {"EVALUATE", true},
               {"NORM", true},
               {"REASON"}});
  for (const RoundRow& r : view.rounds) {
    if (round && r.round != *round) continue;
    for (const ClientRow& c : r.clients) {
      table.Add({Cell::Integer(r.round), c.client, c.state, Cell::Integer(c.rank),
                 Cell::Integer(static_cast<int64_t>(c.num_examples)), Losses(c.train_loss),
                 Losses(c.eval_loss), Cell::Bytes(c.bytes_down), Cell::Bytes(c.bytes_up),
                 Cell::Seconds(c.wait_s), Cell::Seconds(c.download_s), Cell::Seconds(c.train_s),
                 Cell::Seconds(c.upload_s), Cell::Seconds(c.admit_s), Cell::Seconds(c.merge_s),
                 Cell::Seconds(c.evaluate_s), Cell::Number(c.update_norm, 4),
                 c.reason.empty() ? "-" : c.reason});
    }
  }
  return table;
}

Table MembersTable(const RunView& view) {
  Table table({{"CLIENT"},
               {"PRESENT"},
               {"RANK", true},
               {"DEVICE"},
               {"MEMORY_MB", true},
               {"EXAMPLES", true},
               {"EVAL_EXAMPLES", true},
               {"REASON"}});
  for (const MemberRow& m : view.members) {
    const Capabilities& offer = m.capabilities;
    table.Add({m.client, m.present ? "yes" : "no", Cell::Integer(m.rank), offer.device,
               Cell::Integer(static_cast<int64_t>(offer.memory_mb)),
               Cell::Integer(static_cast<int64_t>(offer.num_examples)),
               Cell::Integer(static_cast<int64_t>(offer.eval_examples)),
               m.reason.empty() ? "-" : m.reason});
  }
  return table;
}

Table ShippedTable(const RunView& view) {
  Table table({{"CLIENT"},
               {"METHOD"},
               {"RANK", true},
               {"UPDATES", true},
               {"UP", true},
               {"UP_EACH", true},
               {"LORA_EACH", true},
               {"RATIO", true}});
  for (const ShippedRow& row : Shipped(view)) {
    table.Add({row.client, row.method, Cell::Integer(row.rank),
               Cell::Integer(static_cast<int64_t>(row.updates)), Cell::Bytes(row.bytes_up),
               Cell::Bytes(row.bytes_up / row.updates), Cell::Bytes(row.lora_bytes / row.updates),
               Cell::Number(row.Ratio(), 4)});
  }
  return table;
}

std::string ShippedJson(const RunView& view) {
  Json list = Json::array();
  for (const ShippedRow& row : Shipped(view)) {
    list.push_back({{"client", row.client},
                    {"method", row.method},
                    {"rank", row.rank},
                    {"updates", row.updates},
                    {"bytes_up", row.bytes_up},
                    {"lora_bytes", row.lora_bytes},
                    {"ratio", OrNull(row.Ratio())}});
  }
  return Dump(list);
}

std::string PosteriorJson(const RunView& view) {
  if (!view.posterior) return "null";
  const PosteriorFitted& fitted = *view.posterior;
  Json clients = Json::array();
  for (const ClientId& client : fitted.clients) clients.push_back(client.name);
  return Dump({{"version", fitted.version.number},
               {"file", fitted.file.name},
               {"sha256", fitted.file.sha256},
               {"precision", fitted.precision},
               {"log_marginal", fitted.log_marginal},
               {"log_likelihood", fitted.log_likelihood},
               {"examples", fitted.examples},
               {"clients", clients},
               {"fit_s", fitted.fit_s}});
}

std::string RunsJson(const std::vector<ListedRun>& runs) {
  Json list = Json::array();
  for (const ListedRun& run : runs) list.push_back(ToObject(run));
  return Dump({{"runs", list}});
}

std::string RunJson(const ListedRun& run) { return Dump(ToObject(run)); }

std::string RoundsJson(const RunView& view, std::optional<uint32_t> round) {
  Json list = Json::array();
  for (const RoundRow& r : view.rounds) {
    if (!round || r.round == *round) list.push_back(ToObject(r));
  }
  return Dump({{"run", view.run}, {"state", view.state}, {"rounds", list}});
}

std::string RoundJson(const RoundRow& round) { return Dump(ToObject(round)); }

std::string ClientJson(const RoundRow& round, const ClientRow& client) {
  return Dump(ToObject(round, client));
}

std::string EventJson(const LedgerEvent& event) {
  Json body = Parsed(event.body);
  if (body.is_discarded()) body = event.body;
  return Dump({{"seq", event.seq},
               {"wall_us", event.wall_us},
               {"kind", event.kind},
               {"body", std::move(body)},
               {"hash", event.hash}});
}

std::string EventText(const LedgerEvent& event) {
  const Result<RunEvent> parsed = FromEvent(event);
  if (!parsed.ok()) return OneLine(parsed.status().message());
  const std::string text = std::visit(Teller(), *parsed);
  return OneLine(text.empty() ? event.kind + " " + event.body : text);
}

}  // namespace weft::cli
