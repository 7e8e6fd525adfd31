#pragma once
// RunView: what a run's ledger says, as rows for people and tools: the run, its members, its rounds
// and each client's part in them. Folded from events, so it can follow a run that is still going.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/plan/certificate.h"
#include "common/runtime/ledger_db.h"
#include "common/runtime/run_events.h"

namespace weft {

/// One client in one round.
struct ClientRow {
  std::string client;
  // "asked" (its bundle is on its way), "training", "accepted", "carried" (it goes on, and counts
  // in a later round), "refused", "late", "dropped"; "evaluated" for one that only evaluated what
  // the round published.
  std::string state;
  std::string method;  // of the update it sent
  int64_t rank = 0;
  uint64_t num_examples = 0;
  uint64_t label_tokens = 0;
  uint64_t steps = 0;
  uint64_t rounds_late = 0;  // its update was asked for so many rounds before the one it counts in
  std::optional<double> train_loss;
  std::optional<double> eval_loss;  // of what the round published, on its own validation rows
  uint64_t eval_tokens = 0;
  uint64_t bytes_down = 0;
  uint64_t bytes_up = 0;
  uint64_t lora_bytes = 0;  // of a plain LoRA of the same ranks in float32
  // Seconds in each phase; merge_s is the round's, the same for all whose update was merged.
  double wait_s = 0;
  double download_s = 0;
  double train_s = 0;
  double upload_s = 0;
  double admit_s = 0;
  double merge_s = 0;
  double evaluate_s = 0;
  std::optional<double> update_norm;
  std::string reason;  // why it was refused or dropped, or is asked again
};

/// What one client's accepted updates of one method cost on the wire, all rounds together.
struct ShippedRow {
  std::string client;
  std::string method;
  int64_t rank = 0;  // of the newest
  uint64_t updates = 0;
  uint64_t bytes_up = 0;
  uint64_t lora_bytes = 0;

  /// Bytes for each byte of a plain LoRA of the same ranks in float32.
  [[nodiscard]] std::optional<double> Ratio() const {
    if (lora_bytes == 0) return std::nullopt;
    return static_cast<double>(bytes_up) / static_cast<double>(lora_bytes);
  }
};

struct RoundRow {
  uint32_t round = 0;
  std::string state;      // "open", "published", "measured", "failed"
  bool measures = false;  // its clients send statistics of the adapter, no updates
  uint32_t attempts = 0;
  uint64_t cohort = 0;
  uint64_t accepted = 0;
  uint64_t late = 0;
  uint64_t dropped = 0;
  uint64_t refused = 0;
  std::optional<double> train_loss;    // mean of the accepted clients', weighted by label tokens
  std::optional<double> clients_loss;  // of the published adapter, weighted by label tokens
  uint64_t evaluators = 0;             // clients behind clients_loss
  std::optional<double> server_loss;
  Metrics server_metrics;  // beside it, where rows are classified
  bool best = false;
  std::string adapter_sha256;
  std::string peft_folder;
  Certificate certificate;
  double merge_s = 0;
  int64_t opened_us = 0;
  int64_t published_us = 0;
  std::string reason;              // of the last failed attempt
  std::vector<ClientRow> clients;  // by name

  [[nodiscard]] uint64_t BytesDown() const;
  [[nodiscard]] uint64_t BytesUp() const;
};

struct MemberRow {
  std::string client;
  bool present = false;
  int64_t rank = 0;
  Capabilities capabilities;
  std::string reason;  // why it is gone
};

struct RunView {
  std::string run;
  std::string state = "pending";  // pending, starting, running, finished:{completed,failed,stopped}
  std::string reason;
  std::string strategy;
  std::string base_hash;
  std::string software;
  std::string settings_toml;
  uint64_t seed = 0;
  uint64_t sites = 0;
  AdapterSpec adapter;
  uint32_t num_server_rounds = 0;
  uint32_t published = 0;  // newest published round
  uint32_t resumed = 0;    // times the daemon was started again
  std::optional<PosteriorFitted> posterior;
  std::optional<uint32_t> best_round;
  std::optional<double> best_loss;
  std::string best_by;
  int64_t started_us = 0;
  int64_t finished_us = 0;
  int64_t last_us = 0;  // of the newest event
  uint64_t events = 0;
  std::vector<MemberRow> members;  // by name
  std::vector<RoundRow> rounds;    // by number, from 0

  [[nodiscard]] bool Finished() const { return finished_us != 0; }
};

/// Folds events, in order, into a view.
class RunFold {
 public:
  /// kDataLoss if the event's body is not as its kind demands.
  [[nodiscard]] Status Add(const LedgerEvent& event);
  [[nodiscard]] const RunView& view() const { return view_; }
  /// Takes all rounds but the newest `keep` out of the view, for one who follows a run for long. An
  /// event that still comes of such a round begins its row anew.
  [[nodiscard]] std::vector<RoundRow> TakeOlder(size_t keep);

 private:
  RunView view_;
};

/// Reads the ledger of a run folder, also of one an aggregator is working on.
class RunReader {
 public:
  /// kNotFound if the folder holds no run.
  [[nodiscard]] static Result<RunReader> Open(const std::filesystem::path& folder);

  /// Events that have come since the last call (all, at first), chain checked and folded.
  [[nodiscard]] Result<std::vector<LedgerEvent>> Poll();
  [[nodiscard]] const RunView& view() const { return fold_.view(); }
  [[nodiscard]] std::vector<RoundRow> TakeOlder(size_t keep) { return fold_.TakeOlder(keep); }
  [[nodiscard]] const LedgerTail& tail() const { return tail_; }

 private:
  explicit RunReader(std::unique_ptr<LedgerDb> db) : db_(std::move(db)) {}

  std::unique_ptr<LedgerDb> db_;
  LedgerTail tail_;
  RunFold fold_;
};

/// The whole view at once.
[[nodiscard]] Result<RunView> ReadRunView(const std::filesystem::path& folder);

/// By client and method, in that order.
[[nodiscard]] std::vector<ShippedRow> Shipped(const RunView& view);

}  // namespace weft
