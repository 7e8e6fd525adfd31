// The one door through which SQLite is met: its exceptions become Statuses here.
#include "common/runtime/ledger_db.h"

#include <cerrno>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <SQLiteCpp/SQLiteCpp.h>
#include <sqlite3.h>

#include "common/base/str.h"
#include "common/runtime/ledger_schema.h"

namespace weft {
namespace {

constexpr int kBusyTimeoutMs = 5000;

bool NoSpace(int error) { return error == ENOSPC || error == EDQUOT || error == EFBIG; }

Status FromSqlite(const std::filesystem::path& file, const std::string& action, int code,
                  int system_error, const std::string& what) {
  const std::string message = Str("[ledger] ", file.string(), ": ", action, ": ", what);
  switch (code & 0xFF) {  // the low byte is the primary code
    case SQLITE_FULL:
      return ResourceExhausted(message + "; free space in the run folder");
    case SQLITE_IOERR:
      if (NoSpace(system_error)) {
        return ResourceExhausted(message + "; free space in the run folder");
      }
      return Internal(Str(message, " (system error ", system_error, ")"));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return Unavailable(message + "; another program holds the database");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return DataLoss(message + "; it is damaged, or no run's ledger");
    case SQLITE_READONLY:
    case SQLITE_PERM:
      return PermissionDenied(message);
    case SQLITE_CANTOPEN:
      return NotFound(message);
    default:
      return Internal(message);
  }
}

// The system's error behind an SQLITE_IOERR. SQLite keeps it per file; a write fails on the
// write-ahead log or, at a checkpoint, on the database itself.
int LastSystemError(SQLite::Database& db) {
  for (const int which : {SQLITE_FCNTL_JOURNAL_POINTER, SQLITE_FCNTL_FILE_POINTER}) {
    sqlite3_file* file = nullptr;
    int error = 0;
    if (sqlite3_file_control(db.getHandle(), "main", which, &file) == SQLITE_OK &&
        file != nullptr && file->pMethods != nullptr &&
        file->pMethods->xFileControl(file, SQLITE_FCNTL_LAST_ERRNO, &error) == SQLITE_OK &&
        NoSpace(error)) {
      return error;
    }
  }
  return sqlite3_system_errno(db.getHandle());
}

// Whether this is a database of ours; an empty one may become it.
Status CheckIdentity(SQLite::Database& db, const std::filesystem::path& file, bool may_be_empty) {
  const int id = db.execAndGet("PRAGMA application_id").getInt();
  if (id == kLedgerApplicationId) return OkStatus();
  const bool empty = db.execAndGet("SELECT count(*) FROM sqlite_master").getInt() == 0;
  if (empty && may_be_empty) return OkStatus();
  if (empty) return DataLoss(Str("[ledger] ", file.string(), ": is empty; name a run folder"));
  return InvalidArgument(
      Str("[ledger] ", file.string(), ": is a database of another program; name a run folder"));
}

// Views say nothing of their own; rows and triggers stay.
void DropViews(SQLite::Database& db) {
  std::vector<std::string> names;
  SQLite::Statement views(db, "SELECT name FROM sqlite_master WHERE type = 'view'");
  while (views.executeStep()) names.push_back(views.getColumn(0).getString());
  views.reset();
  for (const std::string& name : names) db.exec(Str("DROP VIEW \"", name, "\""));
}

// Runs `body`, which may use SQLiteCpp freely.
template <typename Body>
Status Door(const std::filesystem::path& file, const std::string& action, SQLite::Database* db,
            Body body) {
  try {
    return body();
  } catch (const SQLite::Exception& e) {
    const int system_error = db != nullptr ? LastSystemError(*db) : errno;
    return FromSqlite(file, action, e.getErrorCode(), system_error, e.what());
  }
}

}  // namespace

struct LedgerDb::State {
  std::filesystem::path file;
  std::optional<SQLite::Database> db;

  template <typename Body>
  Status Guard(const std::string& action, Body body) {
    return Door(file, action, db ? &*db : nullptr, body);
  }
};

LedgerDb::LedgerDb(std::unique_ptr<State> state) : state_(std::move(state)) {}
LedgerDb::~LedgerDb() = default;

Result<std::unique_ptr<LedgerDb>> LedgerDb::OpenForWriting(const std::filesystem::path& file) {
  auto state = std::make_unique<State>();
  state->file = file;
  const auto open = [&]() -> Status {
    state->db.emplace(file.string(), SQLite::OPEN_READWRITE | SQLite::OPEN_CREATE, kBusyTimeoutMs);
    WEFT_TRY(CheckIdentity(*state->db, file, /*may_be_empty=*/true));
    const int version = state->db->execAndGet("PRAGMA user_version").getInt();
    if (version > kLedgerSchemaVersion) {
      return FailedPrecondition(Str("[ledger] ", file.string(), ": layout version ", version,
                                    ", this program knows up to ", kLedgerSchemaVersion,
                                    ": use a newer weft"));
    }
    state->db->exec("PRAGMA journal_mode=WAL");
    state->db->exec("PRAGMA synchronous=FULL");
    if (version < kLedgerSchemaVersion) {
      SQLite::Transaction transaction(*state->db, SQLite::TransactionBehavior::IMMEDIATE);
      DropViews(*state->db);  // of an older layout: the schema makes them anew
      state->db->exec(kLedgerSchema);
      state->db->exec(Str("PRAGMA application_id=", kLedgerApplicationId));
      state->db->exec(Str("PRAGMA user_version=", kLedgerSchemaVersion));
      transaction.commit();
    }
    return OkStatus();
  };
  WEFT_TRY(state->Guard("open", open));
  return std::unique_ptr<LedgerDb>(new LedgerDb(std::move(state)));
}

Result<std::unique_ptr<LedgerDb>> LedgerDb::OpenForReading(const std::filesystem::path& file) {
  std::error_code error;
  if (!std::filesystem::exists(file, error)) {
    return NotFound(Str("[ledger] ", file.string(), ": no such file; name a run folder"));
  }
  if (!std::filesystem::is_regular_file(file, error)) {
    return InvalidArgument(Str("[ledger] ", file.string(), ": is no file; name a run folder"));
  }
  auto state = std::make_unique<State>();
  state->file = file;
  const auto open = [&](const std::string& name, int flags) {
    return state->Guard("open", [&]() -> Status {
      state->db.emplace(name, flags, kBusyTimeoutMs);
      return CheckIdentity(*state->db, file, /*may_be_empty=*/false);
    });
  };
  Status status = open(file.string(), SQLite::OPEN_READONLY);
  if (!status.ok() && status.code() != Code::kDataLoss && status.code() != Code::kUnavailable &&
      status.code() != Code::kInvalidArgument) {
    // On a read-only disk WAL's shared memory cannot be made; there nobody writes either.
    status = open(Str("file:", std::filesystem::absolute(file, error).string(), "?immutable=1"),
                  SQLite::OPEN_READONLY | SQLite::OPEN_URI);
  }
  WEFT_TRY(status);
  return std::unique_ptr<LedgerDb>(new LedgerDb(std::move(state)));
}

Status LedgerDb::Insert(std::span<const LedgerEvent> events) {
  return state_->Guard("append", [&]() -> Status {
    SQLite::Transaction transaction(*state_->db, SQLite::TransactionBehavior::IMMEDIATE);
    SQLite::Statement previous(*state_->db, "SELECT hash FROM events WHERE seq = ?");
    SQLite::Statement insert(*state_->db,
                             "INSERT INTO events (seq, wall_us, kind, body, prev_hash, hash) "
                             "VALUES (?, ?, ?, ?, ?, ?)");
    std::string before(kLedgerGenesis);
    if (!events.empty() && events.front().seq > 1) {
      previous.bind(1, static_cast<int64_t>(events.front().seq - 1));
      if (previous.executeStep()) before = previous.getColumn(0).getString();
    }
    for (const LedgerEvent& event : events) {
      insert.bind(1, static_cast<int64_t>(event.seq));
      insert.bind(2, event.wall_us);
      insert.bind(3, event.kind);
      insert.bind(4, event.body);
      insert.bind(5, before);
      insert.bind(6, event.hash);
      insert.exec();
      insert.reset();
      before = event.hash;
    }
    previous.reset();
    transaction.commit();
    return OkStatus();
  });
}

Result<LedgerTail> LedgerDb::Tail() {
  LedgerTail tail;
  WEFT_TRY(state_->Guard("read the last row", [&]() -> Status {
    SQLite::Statement last(*state_->db, "SELECT seq, hash FROM events ORDER BY seq DESC LIMIT 1");
    if (last.executeStep()) {
      tail.seq = static_cast<uint64_t>(last.getColumn(0).getInt64());
      tail.hash = last.getColumn(1).getString();
    }
    return OkStatus();
  }));
  return tail;
}

Status LedgerDb::EachAfter(LedgerTail& tail, const Store::TakeEvent& take) {
  const uint64_t first = tail.seq + 1;
  Status taken;
  const auto read = [&]() -> Status {
    SQLite::Statement rows(*state_->db,
                           "SELECT seq, wall_us, kind, body, prev_hash, hash FROM events "
                           "WHERE seq > ? ORDER BY seq");
    rows.bind(1, static_cast<int64_t>(tail.seq));
    while (rows.executeStep()) {
      LedgerEvent event;
      event.seq = static_cast<uint64_t>(rows.getColumn(0).getInt64());
      event.wall_us = rows.getColumn(1).getInt64();
      event.kind = rows.getColumn(2).getString();
      event.body = rows.getColumn(3).getString();
      event.hash = rows.getColumn(5).getString();
      const std::string named = rows.getColumn(4).getString();
      if (event.seq == tail.seq + 1 && named != tail.hash) {
        return DataLoss(Str(state_->file.string(), ": [ledger] row ", event.seq, " ", event.kind,
                            ": it follows a row with hash ", named, ", the row before has ",
                            tail.hash, ": this row was altered, or one before it replaced"));
      }
      WEFT_TRY(CheckLink(tail, event).Within(state_->file.string()));
      taken = take(std::move(event));
      if (!taken.ok()) return OkStatus();
    }
    return OkStatus();
  };
  const Status status = state_->Guard(Str("read row ", first), read);
  if (!taken.ok()) return taken;
  if (status.ok() || status.code() == Code::kDataLoss) return status;
  return status.Within(Str("after row ", tail.seq));
}

Result<std::vector<LedgerEvent>> LedgerDb::ReadAfter(LedgerTail& tail,
                                                     std::vector<LedgerEvent>* good) {
  std::vector<LedgerEvent> events;
  const Status status = EachAfter(tail, [&](LedgerEvent event) {
    events.push_back(std::move(event));
    return OkStatus();
  });
  if (status.ok()) return events;
  if (good != nullptr) *good = std::move(events);
  return status;
}

}  // namespace weft
