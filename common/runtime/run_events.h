#pragma once
// The kinds of event a run's ledger holds, as plain structs: what the aggregator writes and what
// every reader (resume, `weft runs`, the views of run.db) folds. The JSON keys are the fields'
// names; run_events.cc lists them. A struct's kKind is the event's kind.
//
// Order of a run: run-started · round-published(0) · { member-joined | member-gone } ·
// per round: round-opened · update-lost … · bundle-sent … · update-accepted | update-refused |
// update-late | client-dropped … · round-published · eval-reported … · server-evaluated ·
// best-round · … · at the end where a posterior is asked for: round-opened · … · posterior-fitted ·
// run-finished. A daemon that starts on a folder with a ledger writes run-resumed
// first. A relay's: round-published(v), adopted · round-opened(v + 1) · … · update-forwarded · the
// next version adopted, which may be more than one later · …

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "common/base/ids.h"
#include "common/base/result.h"
#include "common/plan/adapter_spec.h"
#include "common/plan/certificate.h"
#include "common/plan/round_plan.h"
#include "common/runtime/store.h"

namespace weft {

/// A file of this name in the run folder asks the aggregator to end the run as "stopped"; it polls
/// for it (seconds apart), takes the text as the reason, and removes the file once RunFinished is
/// on disk. `weft runs stop` writes it.
inline constexpr const char* kStopRequestFile = "stop-request";

/// Words of RunFinished::state.
inline constexpr const char* kRunCompleted = "completed";
inline constexpr const char* kRunFailed = "failed";
inline constexpr const char* kRunStopped = "stopped";

/// A file the ledger vouches for: a blob's name, or a path below the run folder.
struct FileRef {
  std::string name;
  uint64_t bytes = 0;
  std::string sha256;  // hex
  friend bool operator==(const FileRef&, const FileRef&) = default;
};

struct RunStarted {
  static constexpr std::string_view kKind = "run-started";
  RunId run;
  std::string settings_sha256;  // of ToToml(settings, all)
  std::string base_hash;
  uint64_t seed = 0;
  uint32_t num_server_rounds = 0;
  std::string strategy;
  AdapterSpec adapter;        // of the global adapter
  uint64_t sites = 0;         // layers that carry it
  std::string software;       // "weft 0.1.0"
  uint32_t protocol = 0;      // version of the wire protocol
  std::string settings_toml;  // the effective settings, for people
  friend bool operator==(const RunStarted&, const RunStarted&) = default;
};

/// The daemon was started again on this folder; `round` is the one it goes on with.
struct RunResumed {
  static constexpr std::string_view kKind = "run-resumed";
  RoundId round;
  std::string software;
  std::string settings_toml = {};  // the effective settings where they changed; empty: as before
  friend bool operator==(const RunResumed&, const RunResumed&) = default;
};

struct MemberJoined {
  static constexpr std::string_view kKind = "member-joined";
  ClientId client;
  Capabilities capabilities;
  int64_t rank = 0;  // planned for this site
  friend bool operator==(const MemberJoined&, const MemberJoined&) = default;
};

struct MemberGone {
  static constexpr std::string_view kKind = "member-gone";
  ClientId client;
  std::string reason;
  friend bool operator==(const MemberGone&, const MemberGone&) = default;
};

struct RoundOpened {
  static constexpr std::string_view kKind = "round-opened";
  struct Bundle {
    ClientId client;
    std::string sha256;
    uint64_t bytes = 0;
    friend bool operator==(const Bundle&, const Bundle&) = default;
  };
  RoundPlan plan;
  uint32_t attempt = 1;         // 1, then one more for each try after a missed quorum
  std::vector<Bundle> bundles;  // what each member of the cohort is sent, by client name
  friend bool operator==(const RoundOpened&, const RoundOpened&) = default;
};

/// A client has all of its bundle.
struct BundleSent {
  static constexpr std::string_view kKind = "bundle-sent";
  RoundId round;
  ClientId client;
  uint64_t bytes = 0;  // on the wire, re-sent chunks included
  double download_s = 0;
  friend bool operator==(const BundleSent&, const BundleSent&) = default;
};

struct UpdateAccepted {
  static constexpr std::string_view kKind = "update-accepted";
  UpdateHeader header;  // payload_sha256 is the blob's SHA-256; its round is the one that asked
  std::string blob;     // name in the store, until the round is published (or kept)
  double update_norm = 0;
  double admit_s = 0;
  double upload_s = 0;
  uint64_t bytes = 0;       // on the wire, re-sent chunks included
  uint64_t lora_bytes = 0;  // of a plain LoRA of the same ranks in float32; 0: not recorded
  RoundId round = {};       // that it counts in, where that is not the one that asked
  friend bool operator==(const UpdateAccepted&, const UpdateAccepted&) = default;

  [[nodiscard]] RoundId CountsIn() const { return round.number > 0 ? round : header.round; }
};

/// An accepted update whose blob is gone from the spool: it counts no longer, and its client is
/// asked for it again.
struct UpdateLost {
  static constexpr std::string_view kKind = "update-lost";
  RoundId round;
  ClientId client;
  std::string blob;  // UpdateAccepted's
  friend bool operator==(const UpdateLost&, const UpdateLost&) = default;
};

struct UpdateRefused {
  static constexpr std::string_view kKind = "update-refused";
  RoundId round;
  ClientId client;
  std::string code;  // CodeName()
  std::string reason;
  friend bool operator==(const UpdateRefused&, const UpdateRefused&) = default;
};

/// An update that came after its round had closed.
struct UpdateLate {
  static constexpr std::string_view kKind = "update-late";
  RoundId round;
  ClientId client;
  friend bool operator==(const UpdateLate&, const UpdateLate&) = default;
};

struct ClientDropped {
  static constexpr std::string_view kKind = "client-dropped";
  RoundId round;
  ClientId client;
  std::string reason;
  std::string phase;  // it was last heard in: "wait", "download", "train", "upload"
  friend bool operator==(const ClientDropped&, const ClientDropped&) = default;
};

/// What decides the bits of a merge beside its inputs: kernels sum in an order of their own.
struct MergeKernels {
  std::string torch;    // its version
  std::string cpu;      // kernels that torch chose for this CPU: "AVX2", "AVX512" …
  int64_t threads = 0;  // of one computation; 0: not recorded
  friend bool operator==(const MergeKernels&, const MergeKernels&) = default;
};

/// The version `version` exists: round 0 is the initial adapter, others were merged.
struct RoundPublished {
  static constexpr std::string_view kKind = "round-published";
  RoundId round;
  RoundId version;  // equals round
  FileRef state;    // the strategy's state, a blob
  std::string adapter_sha256;
  Certificate certificate;  // empty for round 0
  double merge_s = 0;
  std::string peft_folder;          // below the run folder; empty: none written
  std::vector<FileRef> peft_files;  // below the run folder
  MergeKernels kernels;
  bool updates_kept = false;  // the merged updates and the state they changed stay in the folder
  bool adopted = false;       // a relay has it from the aggregator above; others merged it
  friend bool operator==(const RoundPublished&, const RoundPublished&) = default;
};

/// A relay's round is over: what its members changed is one update for the aggregator above. The
/// members' updates stay until the next version is adopted.
struct UpdateForwarded {
  static constexpr std::string_view kKind = "update-forwarded";
  RoundId round;
  FileRef file;               // the update, a blob
  UpdateHeader header;        // of it, as the relay offers it
  std::string bundle_sha256;  // of what the aggregator above sent for the round
  double error = 0;  // ‖forwarded − Σ p_k (ΔW_k − sent_k)‖_F over the latter's norm
  double merge_s = 0;
  friend bool operator==(const UpdateForwarded&, const UpdateForwarded&) = default;
};

/// What clients measured of the newest version, merged, and the posterior fitted to it. Ends the
/// round that measured; no version follows.
struct PosteriorFitted {
  static constexpr std::string_view kKind = "posterior-fitted";
  RoundId round;
  RoundId version;            // whose adapter was measured
  FileRef file;               // statistics and precision, a blob; `weft laplace predict` reads it
  double precision = 0;       // prior precision λ
  double log_marginal = 0;    // its evidence
  double log_likelihood = 0;  // Σ log p(label) over all clients' rows
  uint64_t examples = 0;
  std::vector<ClientId> clients;  // who measured, by name
  double fit_s = 0;
  friend bool operator==(const PosteriorFitted&, const PosteriorFitted&) = default;
};

/// A try at a round ended without its quorum (or its merge failed).
struct RoundMissed {
  static constexpr std::string_view kKind = "round-failed";
  RoundId round;
  uint32_t attempt = 1;
  std::string reason;
  friend bool operator==(const RoundMissed&, const RoundMissed&) = default;
};

struct EvalReported {
  static constexpr std::string_view kKind = "eval-reported";
  EvalReport report;
  friend bool operator==(const EvalReported&, const EvalReported&) = default;
};

struct ServerEvaluated {
  static constexpr std::string_view kKind = "server-evaluated";
  RoundId version;
  double loss = 0;
  uint64_t label_tokens = 0;
  Metrics metrics = {};  // accuracy and so on, where rows are classified
  double evaluate_s = 0;
  friend bool operator==(const ServerEvaluated&, const ServerEvaluated&) = default;
};

/// The version that is best so far.
struct BestRound {
  static constexpr std::string_view kKind = "best-round";
  RoundId version;
  double loss = 0;
  std::string by;  // "clients" (weighted by label tokens) or "server"
  friend bool operator==(const BestRound&, const BestRound&) = default;
};

/// Blobs taken away on purpose; `weft runs verify` then does not miss them. Spool blobs of a
/// published round need no such event, unless the round says that they are kept.
struct BlobsRemoved {
  static constexpr std::string_view kKind = "blobs-removed";
  std::vector<std::string> blobs;
  std::string reason;
  friend bool operator==(const BlobsRemoved&, const BlobsRemoved&) = default;
};

struct RunFinished {
  static constexpr std::string_view kKind = "run-finished";
  std::string state;  // kRunCompleted, kRunFailed, kRunStopped
  std::string reason;
  friend bool operator==(const RunFinished&, const RunFinished&) = default;
};

/// Any of them; std::monostate for a kind this version does not know.
using RunEvent =
    std::variant<std::monostate, RunStarted, RunResumed, MemberJoined, MemberGone, RoundOpened,
                 BundleSent, UpdateAccepted, UpdateLost, UpdateRefused, UpdateLate, ClientDropped,
                 RoundPublished, UpdateForwarded, PosteriorFitted, RoundMissed, EvalReported,
                 ServerEvaluated, BestRound, BlobsRemoved, RunFinished>;

/// The event as the store takes it. std::monostate has none (a bug, checked).
[[nodiscard]] EventDraft ToDraft(const RunEvent& event);

/// The event of a ledger row: kDataLoss naming row, kind and field if its body is not as run_events
/// says.
[[nodiscard]] Result<RunEvent> FromEvent(const LedgerEvent& event);

/// The same for one kind: kInvalidArgument if the row is of another.
template <typename E>
[[nodiscard]] Result<E> FromEvent(const LedgerEvent& event) {
  WEFT_TRY_ASSIGN(RunEvent any, FromEvent(event));
  if (E* found = std::get_if<E>(&any)) return std::move(*found);
  return InvalidArgument(
      Str("[ledger] row ", event.seq, ": got ", event.kind, ", wanted ", E::kKind));
}

}  // namespace weft
