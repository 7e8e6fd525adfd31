#include "common/runtime/run_verify.h"

#include <algorithm>
#include <map>
#include <vector>

#include "common/base/str.h"
#include "common/crypto/digest.h"
#include "common/runtime/blob_folder.h"
#include "common/runtime/blob_name.h"
#include "common/runtime/run_events.h"
#include "common/runtime/run_view.h"

namespace weft {
namespace {

struct Promise {
  FileRef file;
  uint64_t seq = 0;  // the row that vouches for it
  std::string kind;
  bool spool = false;  // an update: may go once its round is over, unless it is kept
  bool kept = false;
  RoundId round;
  ClientId client = {};  // of an update
};

// What the folder must hold after the last event. A later row that names the same file replaces an
// earlier one: a round that was tried again reuses its spool names.
struct Promises {
  std::map<std::string, Promise> files;
  std::map<uint32_t, bool> round_over;
  bool finished = false;

  void Add(const LedgerEvent& row, const RunEvent& event) {
    const auto promise = [&](const FileRef& file, bool spool, RoundId round) {
      Promise& made = files[file.name];
      made = {.file = file, .seq = row.seq, .kind = row.kind, .spool = spool, .round = round};
      return &made;
    };
    if (const auto* update = std::get_if<UpdateAccepted>(&event)) {
      promise({update->blob, update->header.payload_bytes, update->header.payload_sha256}, true,
              update->CountsIn())
          ->client = update->header.client;
    } else if (const auto* lost = std::get_if<UpdateLost>(&event)) {
      files.erase(lost->blob);
    } else if (const auto* round = std::get_if<RoundPublished>(&event)) {
      promise(round->state, false, round->round);
      for (const FileRef& file : round->peft_files) promise(file, false, round->round);
      round_over[round->round.number] = true;
      if (round->adopted) LeaveBehind(round->round);
      if (round->updates_kept) Keep(round->round);
    } else if (const auto* forwarded = std::get_if<UpdateForwarded>(&event)) {
      promise(forwarded->file, true, forwarded->round);
    } else if (const auto* fitted = std::get_if<PosteriorFitted>(&event)) {
      promise(fitted->file, false, fitted->round);
      round_over[fitted->round.number] = true;
    } else if (const auto* missed = std::get_if<RoundMissed>(&event)) {
      round_over[missed->round.number] = true;
    } else if (const auto* opened = std::get_if<RoundOpened>(&event)) {
      // Of an attempt before this one only the updates of those who are asked again are needed.
      for (auto it = files.begin(); it != files.end();) {
        const bool old = it->second.spool && it->second.round == opened->plan.round &&
                         !IsAsked(opened->plan, it->second.client);
        it = old ? files.erase(it) : std::next(it);
      }
      round_over[opened->plan.round.number] = false;
    } else if (const auto* removed = std::get_if<BlobsRemoved>(&event)) {
      for (const std::string& name : removed->blobs) files.erase(name);
    }
    if (std::holds_alternative<RunFinished>(event)) finished = true;
    if (std::holds_alternative<RunResumed>(event)) finished = false;
  }

  [[nodiscard]] bool MayBeGone(const Promise& promise) const {
    const auto over = round_over.find(promise.round.number);
    return promise.spool && !promise.kept &&
           (finished || (over != round_over.end() && over->second));
  }

  // A relay goes on from whichever version the aggregator above has come to.
  void LeaveBehind(RoundId adopted) {
    for (auto& [number, over] : round_over) over = over || number <= adopted.number;
  }

  void Keep(RoundId round) {
    for (auto& [name, promise] : files) {
      if (promise.spool && promise.round == round) promise.kept = true;
    }
  }

  [[nodiscard]] static bool IsAsked(const RoundPlan& plan, const ClientId& client) {
    return std::any_of(plan.cohort.begin(), plan.cohort.end(),
                       [&](const ClientPlan& asked) { return asked.client == client; });
  }
};

Status CheckFile(const std::filesystem::path& folder, const Promise& promise, bool may_be_gone,
                 VerifyReport& report) {
  const auto bad = [&](const std::string& what) {
    return DataLoss(Str("[verify] row ", promise.seq, " ", promise.kind, ": file ",
                        promise.file.name, ": ", what));
  };
  const Status name = CheckBlobName(promise.file.name);
  if (!name.ok()) return bad(name.message());
  const std::filesystem::path path = folder / promise.file.name;
  const Result<std::string> sha256 = Sha256File(path);
  if (!sha256.ok()) {
    if (sha256.status().code() != Code::kNotFound) return bad(sha256.status().message());
    if (!may_be_gone) return bad("is missing");
    ++report.files_spent;
    return OkStatus();
  }
  if (*sha256 != promise.file.sha256) {
    std::error_code error;
    return bad(Str("has ", std::filesystem::file_size(path, error), " bytes with SHA-256 ", *sha256,
                   ", the ledger says ", promise.file.bytes, " bytes with ", promise.file.sha256));
  }
  ++report.files;
  return OkStatus();
}

Status CheckFiles(const std::filesystem::path& folder, const Promises& promises,
                  VerifyReport& report) {
  // In the order of the rows, so that the first that is wrong is told.
  std::map<std::pair<uint64_t, std::string>, const Promise*> by_row;
  for (const auto& [name, promise] : promises.files) by_row[{promise.seq, name}] = &promise;
  for (const auto& [key, promise] : by_row) {
    WEFT_TRY(CheckFile(folder, *promise, promises.MayBeGone(*promise), report));
  }
  return OkStatus();
}

// A chain without rows is whole in itself, too.
Status CheckEventsAreThere(const std::filesystem::path& folder, const VerifyReport& report) {
  if (report.events > 0) return OkStatus();
  for (const char* of_a_run : {"state", "adapters", "spool"}) {
    std::error_code error;
    const std::filesystem::directory_iterator files(folder / of_a_run, error);
    if (error || files == std::filesystem::directory_iterator()) continue;
    return DataLoss(Str("[verify] ", folder.string(), ": the ledger has no events, but ", of_a_run,
                        "/ holds files of a run: all rows were dropped"));
  }
  return OkStatus();
}

Status CheckKnownHash(const std::string& known, bool found) {
  if (known.empty() || found) return OkStatus();
  return DataLoss(Str("[verify] no row has the hash ", known,
                      ": rows were dropped at the end, or it is another run's"));
}

// After the files: a byte that rotted on the disk is told as such.
Status RecheckRounds(const std::filesystem::path& folder, const KeptRounds& rounds,
                     const RecheckRound& recheck, VerifyReport& report) {
  report.rounds_without_updates = rounds.without_updates();
  report.rounds_measured = rounds.measured();
  if (!recheck) return OkStatus();
  const BlobFolder blobs(folder);
  for (const KeptRound* round : rounds.rounds()) {
    WEFT_TRY(recheck(*round, blobs)
                 .Within(Str("[verify] row ", round->seq, " ", RoundPublished::kKind, ": round ",
                             round->published.round)));
    ++report.certificates_recomputed;
  }
  return OkStatus();
}

// A run that is going on may remove spool files between the reading of its ledger and of its files.
constexpr int kTries = 5;

}  // namespace

Result<VerifyReport> VerifyRun(const std::filesystem::path& folder, const std::string& known_hash,
                               const RecheckRound& recheck) {
  WEFT_TRY_ASSIGN(RunReader reader, RunReader::Open(folder));
  Promises promises;
  KeptRounds rounds;
  bool found = false;
  Status status;
  for (int i = 0; i < kTries; ++i) {
    WEFT_TRY_ASSIGN(const std::vector<LedgerEvent> rows, reader.Poll());
    if (i > 0 && rows.empty()) return status;
    for (const LedgerEvent& row : rows) {
      WEFT_TRY_ASSIGN(const RunEvent event, FromEvent(row));
      promises.Add(row, event);
      WEFT_TRY(rounds.Add(row, event));
      found = found || row.hash == known_hash;
    }
    WEFT_TRY(CheckKnownHash(known_hash, found));
    VerifyReport report;
    status = CheckFiles(folder, promises, report);
    report.events = reader.tail().seq;
    report.hash = reader.tail().hash;
    WEFT_TRY(CheckEventsAreThere(folder, report));
    if (status.ok()) {
      WEFT_TRY(RecheckRounds(folder, rounds, recheck, report));
      return report;
    }
  }
  return status;
}

}  // namespace weft
