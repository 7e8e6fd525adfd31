// `weft runs export RUN --format csv|jsonl`: the run as rows for other tools.

#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/run_rows.h"
#include "cli/set_up.h"
#include "cli/table.h"
#include "common/base/str.h"
#include "common/runtime/run_view.h"

namespace weft::cli {
namespace {

struct ExportOptions {
  std::string folder;
  std::string format = "csv";
  std::string what = "clients";
  std::string out;
};

// RFC 4180: fields with commas, quotes or line breaks are quoted, quotes doubled.
std::string CsvField(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string field = "\"";
  for (const char c : text) {
    if (c == '"') field += '"';
    field += c;
  }
  return field + "\"";
}

void CsvLine(std::ostream& out, const std::vector<std::string>& fields) {
  for (size_t i = 0; i < fields.size(); ++i) out << (i > 0 ? "," : "") << CsvField(fields[i]);
  out << "\r\n";
}

std::string OrEmpty(const std::optional<double>& value) { return value ? ExactNumber(*value) : ""; }

void ClientsCsv(std::ostream& out, const RunView& view) {
  CsvLine(out,
          {"run",          "round",       "client",     "state",     "rank",       "num_examples",
           "label_tokens", "steps",       "train_loss", "eval_loss", "bytes_down", "bytes_up",
           "wait_s",       "download_s",  "train_s",    "upload_s",  "admit_s",    "merge_s",
           "evaluate_s",   "update_norm", "reason",     "method",    "lora_bytes"});
  for (const RoundRow& r : view.rounds) {
    for (const ClientRow& c : r.clients) {
      CsvLine(out, {view.run,
                    Str(r.round),
                    c.client,
                    c.state,
                    Str(c.rank),
                    Str(c.num_examples),
                    Str(c.label_tokens),
                    Str(c.steps),
                    OrEmpty(c.train_loss),
                    OrEmpty(c.eval_loss),
                    Str(c.bytes_down),
                    Str(c.bytes_up),
                    ExactNumber(c.wait_s),
                    ExactNumber(c.download_s),
                    ExactNumber(c.train_s),
                    ExactNumber(c.upload_s),
                    ExactNumber(c.admit_s),
                    ExactNumber(c.merge_s),
                    ExactNumber(c.evaluate_s),
                    OrEmpty(c.update_norm),
                    c.reason,
                    c.method,
                    Str(c.lora_bytes)});
    }
  }
}

void RoundsCsv(std::ostream& out, const RunView& view) {
  CsvLine(out, {"run",
                "round",
                "state",
                "attempts",
                "cohort",
                "accepted",
                "late",
                "dropped",
                "refused",
                "train_loss",
                "eval_loss",
                "evaluators",
                "server_loss",
                "best",
                "rank",
                "error_before_truncation",
                "error_published",
                "error_to_ideal",
                "tail_energy",
                "effective_rank",
                "bytes_down",
                "bytes_up",
                "merge_s",
                "opened_us",
                "published_us",
                "adapter_sha256",
                "reason"});
  for (const RoundRow& r : view.rounds) {
    const Certificate& c = r.certificate;
    CsvLine(out, {view.run,
                  Str(r.round),
                  r.state,
                  Str(r.attempts),
                  Str(r.cohort),
                  Str(r.accepted),
                  Str(r.late),
                  Str(r.dropped),
                  Str(r.refused),
                  OrEmpty(r.train_loss),
                  OrEmpty(r.clients_loss),
                  Str(r.evaluators),
                  OrEmpty(r.server_loss),
                  r.best ? "1" : "0",
                  Str(c.rank),
                  ExactNumber(c.error_before_truncation),
                  ExactNumber(c.error_published),
                  ExactNumber(c.error_to_ideal),
                  ExactNumber(c.tail_energy),
                  ExactNumber(c.effective_rank),
                  Str(r.BytesDown()),
                  Str(r.BytesUp()),
                  ExactNumber(r.merge_s),
                  Str(r.opened_us),
                  Str(r.published_us),
                  r.adapter_sha256,
                  r.reason});
  }
}

void EventsCsv(std::ostream& out, const std::vector<LedgerEvent>& events) {
  CsvLine(out, {"seq", "wall_us", "kind", "body", "hash"});
  for (const LedgerEvent& e : events) {
    CsvLine(out, {Str(e.seq), Str(e.wall_us), e.kind, e.body, e.hash});
  }
}

void Jsonl(std::ostream& out, const std::string& what, const RunView& view,
           const std::vector<LedgerEvent>& events) {
  if (what == "events") {
    for (const LedgerEvent& event : events) out << EventJson(event) << "\n";
    return;
  }
  for (const RoundRow& round : view.rounds) {
    if (what == "rounds") out << RoundJson(round) << "\n";
    if (what != "clients") continue;
    for (const ClientRow& client : round.clients) out << ClientJson(round, client) << "\n";
  }
}

Status Export(const ExportOptions& options) {
  WEFT_TRY_ASSIGN(RunReader reader, RunReader::Open(options.folder));
  WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> events, reader.Poll());
  std::ofstream file;
  if (!options.out.empty()) {
    file.open(options.out, std::ios::binary | std::ios::trunc);
    if (!file) return PermissionDenied(Str(options.out, ": cannot be written"));
  }
  std::ostream& out = options.out.empty() ? std::cout : file;
  if (options.format == "jsonl") {
    Jsonl(out, options.what, reader.view(), events);
  } else if (options.what == "clients") {
    ClientsCsv(out, reader.view());
  } else if (options.what == "rounds") {
    RoundsCsv(out, reader.view());
  } else {
    EventsCsv(out, events);
  }
  out.flush();
  if (!out) return ResourceExhausted(Str(options.out, ": writing failed; is the disk full?"));
  return OkStatus();
}

}  // namespace

Action SetUpRunsExport(CLI::App& app) {
  auto options = std::make_shared<ExportOptions>();
  app.add_option("RUN", options->folder, "run folder")->required();
  app.add_option("--format", options->format, "csv or jsonl")
      ->check(CLI::IsMember({"csv", "jsonl"}))
      ->capture_default_str();
  app.add_option("--what", options->what, "clients (a row per round and client), rounds or events")
      ->check(CLI::IsMember({"clients", "rounds", "events"}))
      ->capture_default_str();
  app.add_option("--out", options->out, "file (default: standard output)");
  return [options] { return Export(*options); };
}

}  // namespace weft::cli
