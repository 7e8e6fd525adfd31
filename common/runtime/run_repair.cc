#include "common/runtime/run_repair.h"

#include <memory>
#include <system_error>
#include <vector>

#include "common/base/str.h"
#include "common/runtime/ledger_db.h"
#include "common/runtime/run_lock.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// What SQLite keeps beside a database that was not closed, and belongs to it.
constexpr const char* kBeside[] = {"-wal", "-shm"};

Status Rename(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (!error) return OkStatus();
  return Unavailable(Str("[repair] ", from.string(), " cannot be renamed to ", to.string(), ": ",
                         error.message()));
}

// The whole rows as a database of their own.
Status WriteRows(const fs::path& file, const std::vector<LedgerEvent>& rows) {
  std::error_code ignored;
  fs::remove(file, ignored);
  WEFT_TRY_ASSIGN(const std::unique_ptr<LedgerDb> db, LedgerDb::OpenForWriting(file));
  return db->Insert(rows);
}

fs::path FreeName(const fs::path& folder) {
  for (int i = 1;; ++i) {
    fs::path name = folder / Str(kLedgerFile, ".damaged-", i);
    std::error_code ignored;
    if (!fs::exists(name, ignored)) return name;
  }
}

}  // namespace

Result<RepairReport> RepairLedger(const fs::path& folder) {
  const fs::path file = folder / kLedgerFile;
  RepairReport report;
  std::vector<LedgerEvent> good;
  WEFT_TRY_ASSIGN(const RunLock lock, RunLock::Acquire(folder));
  {
    WEFT_TRY_ASSIGN(const std::unique_ptr<LedgerDb> db, LedgerDb::OpenForReading(file));
    LedgerTail tail;
    const Result<std::vector<LedgerEvent>> rows = db->ReadAfter(tail, &good);
    if (rows.ok()) {
      report.rows = rows->size();
      return report;
    }
    if (rows.status().code() != Code::kDataLoss) return rows.status();
    report.damage = rows.status().message();
  }
  report.rows = good.size();
  if (good.empty()) {
    return DataLoss(Str(
        "[repair] ", file.string(),
        ": not even its first row is whole, so there is nothing to go on from: ", report.damage));
  }
  const fs::path next = folder / Str(kLedgerFile, ".repaired");
  WEFT_TRY(WriteRows(next, good));
  const fs::path kept = FreeName(folder);
  report.kept = kept.filename().string();
  // Closed, the new one has nothing beside it. Between the two renames the folder has no ledger,
  // which a start over the files of a run refuses (RunCourse::CheckNothingWasLost).
  WEFT_TRY(Rename(file, kept));
  for (const char* suffix : kBeside) {
    std::error_code ignored;
    if (!fs::exists(file.string() + suffix, ignored)) continue;
    WEFT_TRY(Rename(file.string() + suffix, kept.string() + suffix));
  }
  WEFT_TRY(Rename(next, file));
  return report;
}

}  // namespace weft
