#pragma once
// LedgerDb: the ledger as a SQLite database (run.db), the one place that meets SQLite. One object
// belongs to one thread; readers in other threads and processes open their own. docs/formats.md
// has the tables and views.

#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/runtime/ledger.h"
#include "common/runtime/store.h"

namespace weft {

inline constexpr const char* kLedgerFile = "run.db";

class LedgerDb {
 public:
  ~LedgerDb();
  LedgerDb(const LedgerDb&) = delete;
  LedgerDb& operator=(const LedgerDb&) = delete;

  /// Opens or makes the database for writing: WAL, synchronous=FULL.
  [[nodiscard]] static Result<std::unique_ptr<LedgerDb>> OpenForWriting(
      const std::filesystem::path& file);
  /// Opens an existing database; also one being written by another process, or on a read-only disk.
  [[nodiscard]] static Result<std::unique_ptr<LedgerDb>> OpenForReading(
      const std::filesystem::path& file);

  /// All rows in one transaction, or none.
  [[nodiscard]] Status Insert(std::span<const LedgerEvent> events);

  /// Number and hash of the last row.
  [[nodiscard]] Result<LedgerTail> Tail();

  /// Hands over the rows after the tail, in order, each checked against the one before it; the tail
  /// moves on. kDataLoss names the first bad row; ends at the first row that is not taken.
  [[nodiscard]] Status EachAfter(LedgerTail& tail, const Store::TakeEvent& take);
  /// All of them.
  /// kDataLoss names the first bad row; the rows before it are then in `good` where that is given.
  [[nodiscard]] Result<std::vector<LedgerEvent>> ReadAfter(
      LedgerTail& tail, std::vector<LedgerEvent>* good = nullptr);

 private:
  struct State;
  explicit LedgerDb(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace weft
