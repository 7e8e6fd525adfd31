// What FileStore keeps when the process, the disk or the bytes fail. Real files, real kill -9.

#include <array>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/crypto/digest.h"
#include "common/runtime/file_store.h"
#include "common/runtime/run_lock.h"
#include "common/runtime/run_repair.h"
#include "tests/support/post_queue.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::PostQueue;
using testing::ScratchFolder;

FileStore::Options OptionsFor(const fs::path& folder, PostQueue& loop) {
  return {.folder = folder, .post = loop.Poster(), .wall_us = [] { return int64_t{7}; }};
}

std::unique_ptr<FileStore> OpenOrFail(const fs::path& folder, PostQueue& loop) {
  Result<std::unique_ptr<FileStore>> store = FileStore::Open(OptionsFor(folder, loop));
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? std::move(store).value() : nullptr;
}

// Runs `body` in a child and returns its wait status.
template <typename Body>
int InChild(Body body) {
  const pid_t child = ::fork();
  if (child == 0) {
    body();
    ::_exit(0);
  }
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  return status;
}

// Writes for ever, telling the parent one byte per acknowledged step.
[[noreturn]] void WriteUntilKilled(const fs::path& folder, int pipe) {
  // The pipe is written on the store's own thread, as soon as a completion is posted.
  const auto tell = [pipe](char what) {
    return [pipe, what](const Status& status) {
      if (status.ok() && ::write(pipe, &what, 1) != 1) ::_exit(1);
    };
  };
  auto store = FileStore::Open({.folder = folder,
                                .post = [](const std::function<void()>& task) { task(); },
                                .wall_us = [] { return int64_t{7}; }});
  if (!store.ok()) ::_exit(2);
  const std::string chunk(1000, 'p');
  for (uint64_t i = 0; i < 5000; ++i) {
    (*store)->Append({{"step", "{\"i\":" + std::to_string(i) + "}"}, {"twin", "{}"}}, tell('e'));
    (*store)->WriteBlob("blob/" + std::to_string(i), Blob::Copy(std::to_string(i)), tell('b'));
    (*store)->WritePartial("partial", i * chunk.size(), Blob::Copy(chunk), tell('p'));
  }
  store->reset();
  ::_exit(0);
}

TEST(FileStoreCrashTest, Kill9LosesNothingThatWasAcknowledged) {
  for (const int acknowledged_before_kill : {1, 50, 333}) {
    const ScratchFolder scratch;
    const fs::path folder = scratch.path() / "run";
    std::array<int, 2> pipe{};
    ASSERT_EQ(::pipe(pipe.data()), 0);
    const pid_t child = ::fork();
    if (child == 0) WriteUntilKilled(folder, pipe[1]);
    ::close(pipe[1]);

    uint64_t events = 0;
    uint64_t blobs = 0;
    uint64_t parts = 0;
    char what = 0;
    for (int n = 0; ::read(pipe[0], &what, 1) == 1; ++n) {
      events += what == 'e' ? 1 : 0;
      blobs += what == 'b' ? 1 : 0;
      parts += what == 'p' ? 1 : 0;
      if (n == acknowledged_before_kill) ::kill(child, SIGKILL);
    }
    ::close(pipe[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the child was to be killed in the middle";

    PostQueue loop;
    const auto store = OpenOrFail(folder, loop);
    const Result<std::vector<LedgerEvent>> ledger = store->ReadLedger();
    ASSERT_TRUE(ledger.ok()) << ledger.status();
    EXPECT_GE(ledger->size(), 2 * events);
    EXPECT_EQ(ledger->size() % 2, 0u) << "an Append is whole or absent";
    for (uint64_t i = 0; i < blobs; ++i) {
      const Result<Blob> blob = store->ReadBlob("blob/" + std::to_string(i));
      ASSERT_TRUE(blob.ok()) << blob.status();
      EXPECT_EQ(blob->view(), std::to_string(i));
    }
    EXPECT_GE(store->PartialBytes("partial"), parts * 1000);
    for (const auto& entry : fs::recursive_directory_iterator(folder)) {
      EXPECT_NE(entry.path().extension(), ".weft-tmp") << "left over: " << entry.path();
    }
    // And it goes on where it stopped.
    EXPECT_TRUE(loop.Await([&](Done done) { store->Append({{"more", "{}"}}, done); }).ok());
    EXPECT_EQ(store->ReadLedger()->size(), ledger->size() + 1);
  }
}

TEST(FileStoreCrashTest, ATornPartialIsHashedAgainAndCanBeFinished) {
  const ScratchFolder scratch;
  PostQueue loop;
  const std::string whole = std::string(5000, 'a') + std::string(5000, 'b');
  {
    const auto store = OpenOrFail(scratch.path(), loop);
    ASSERT_TRUE(loop.Await([&](Done done) {
                      store->WritePartial("u", 0, Blob::Copy(whole.substr(0, 6000)), done);
                    })
                    .ok());
  }
  fs::resize_file(scratch.path() / "u.part", 5500);  // the tail never reached the disk
  const auto store = OpenOrFail(scratch.path(), loop);
  EXPECT_EQ(store->PartialBytes("u"), 5500u);
  ASSERT_TRUE(loop.Await([&](Done done) {
                    store->WritePartial("u", 5500, Blob::Copy(whole.substr(5500)), done);
                  })
                  .ok());
  ASSERT_TRUE(loop.Await([&](Done done) {
                    store->SealPartial("u", whole.size(), Sha256Hex(AsBytes(whole)), done);
                  })
                  .ok());
  EXPECT_EQ(store->ReadBlob("u")->view(), whole);
}

TEST(FileStoreCrashTest, AFlippedBitInATornPartialIsFoundWhenSealing) {
  const ScratchFolder scratch;
  PostQueue loop;
  {
    const auto store = OpenOrFail(scratch.path(), loop);
    ASSERT_TRUE(
        loop.Await([&](Done done) { store->WritePartial("u", 0, Blob::Copy("abcd"), done); }).ok());
  }
  std::fstream(scratch.path() / "u.part", std::ios::in | std::ios::out).seekp(2).put('X');
  const auto store = OpenOrFail(scratch.path(), loop);
  const Status status =
      loop.Await([&](Done done) { store->SealPartial("u", 4, Sha256Hex(AsBytes("abcd")), done); });
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_FALSE(fs::exists(scratch.path() / "u.part"));
}

TEST(FileStoreCrashTest, TwoStoresOnOneFolderAreRefusedNamingTheOwner) {
  const ScratchFolder scratch;
  PostQueue loop;
  EXPECT_FALSE(RunLockOwner(scratch.path()).has_value());
  {
    const auto store = OpenOrFail(scratch.path(), loop);
    EXPECT_EQ(RunLockOwner(scratch.path()), int64_t{::getpid()});
    const int status = InChild([&] {
      PostQueue child_loop;
      const auto second = FileStore::Open(OptionsFor(scratch.path(), child_loop));
      const std::string owner = "process " + std::to_string(::getppid());
      const bool named = second.status().code() == Code::kAlreadyExists &&
                         second.status().message().find(owner) != std::string::npos;
      ::_exit(named ? 42 : 1);
    });
    EXPECT_EQ(WEXITSTATUS(status), 42);
    EXPECT_EQ(FileStore::Open(OptionsFor(scratch.path(), loop)).status().code(),
              Code::kAlreadyExists)
        << "also within one process";
  }
  EXPECT_FALSE(RunLockOwner(scratch.path()).has_value());
  EXPECT_NE(OpenOrFail(scratch.path(), loop), nullptr);
}

// RLIMIT_FSIZE makes writes past a size fail with EFBIG, which the store treats as a full disk.
// Exit code 0 means all was as it should be; other codes name the step that was not.
void FillTheDisk(const fs::path& folder) {
  ::signal(SIGXFSZ, SIG_IGN);
  PostQueue loop;
  auto store = FileStore::Open(OptionsFor(folder, loop));
  if (!store.ok()) ::_exit(10);
  const auto append = [&](const std::string& body) {
    return loop.Await([&](Done done) { (*store)->Append({{"k", body}}, done); });
  };
  const auto write = [&](const std::string& name, size_t bytes) {
    return loop.Await(
        [&](Done done) { (*store)->WriteBlob(name, Blob::Copy(std::string(bytes, 'x')), done); });
  };
  const auto part = [&](uint64_t offset, size_t bytes) {
    return loop.Await([&](Done done) {
      (*store)->WritePartial("u", offset, Blob::Copy(std::string(bytes, 'x')), done);
    });
  };
  if (!append("\"before\"").ok() || !part(0, 1000).ok()) ::_exit(11);

  const rlimit small{300'000, RLIM_INFINITY};
  ::setrlimit(RLIMIT_FSIZE, &small);
  if (write("big", 1'000'000).code() != Code::kResourceExhausted) ::_exit(12);
  if ((*store)->ReadBlob("big").status().code() != Code::kNotFound) ::_exit(13);
  if (fs::exists(folder / "big.weft-tmp")) ::_exit(14);
  if (part(1000, 1'000'000).code() != Code::kResourceExhausted) ::_exit(15);
  if ((*store)->PartialBytes("u") != 1000) ::_exit(16);
  const Status full = append("\"" + std::string(1'000'000, 'x') + "\"");
  EXPECT_EQ(full.code(), Code::kResourceExhausted) << full;
  if (full.code() != Code::kResourceExhausted) ::_exit(17);

  // What is small enough still goes: the store has stayed usable.
  if (!write("small", 1000).ok()) ::_exit(18);
  const rlimit none{RLIM_INFINITY, RLIM_INFINITY};
  ::setrlimit(RLIMIT_FSIZE, &none);
  if (!append("\"after\"").ok()) ::_exit(19);
  if (!part(1000, 24).ok()) ::_exit(20);
  const std::string whole(1024, 'x');
  const Status sealed = loop.Await([&](Done done) {
    (*store)->SealPartial("u", whole.size(), Sha256Hex(AsBytes(whole)), done);
  });
  if (!sealed.ok()) ::_exit(21);
  const auto ledger = (*store)->ReadLedger();
  if (!ledger.ok() || ledger->size() != 2 || (*ledger)[1].body != "\"after\"") ::_exit(22);
}

TEST(FileStoreCrashTest, AFullDiskFailsTheWriteAndTheStoreStaysUsable) {
  const ScratchFolder scratch;
  const int status = InChild([&] { FillTheDisk(scratch.path()); });
  ASSERT_TRUE(WIFEXITED(status));
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

TEST(FileStoreCrashTest, TheLastBlobOfARoundTakesItsFolderAlong) {
  const ScratchFolder scratch;
  PostQueue loop;
  const auto store = OpenOrFail(scratch.path(), loop);
  const auto write = [&](const std::string& name) {
    return loop.Await(
        [&](Done done) { store->WriteBlob(name, Blob::Copy(std::string_view("x")), done); });
  };
  const auto remove = [&](const std::string& name) {
    return loop.Await([&](Done done) { store->RemoveBlob(name, done); });
  };
  ASSERT_TRUE(write("spool/round-0001/a").ok() && write("spool/round-0001/b").ok());
  ASSERT_TRUE(remove("spool/round-0001/a").ok());
  EXPECT_TRUE(fs::exists(scratch.path() / "spool/round-0001/b"));
  ASSERT_TRUE(remove("spool/round-0001/b").ok());
  EXPECT_FALSE(fs::exists(scratch.path() / "spool/round-0001"));
  EXPECT_TRUE(fs::exists(scratch.path() / "spool"));
  EXPECT_TRUE(remove("spool/round-0001/b").ok()) << "what is gone is gone";
  const Status again = loop.Await([&](Done done) {
    store->WritePartial("spool/round-0001/a", 0, Blob::Copy(std::string_view("y")), done);
  });
  EXPECT_TRUE(again.ok()) << again;
}

void Sql(const fs::path& file, const std::string& statement) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &db), SQLITE_OK);
  char* error = nullptr;
  EXPECT_EQ(sqlite3_exec(db, statement.c_str(), nullptr, nullptr, &error), SQLITE_OK) << error;
  sqlite3_free(error);
  sqlite3_close(db);
}

class AlteredLedgerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto store = OpenOrFail(scratch_.path(), loop_);
    for (int i = 0; i < 5; ++i) {
      const std::string body = "{\"marker\":\"row" + std::to_string(i + 1) + "\"}";
      ASSERT_TRUE(loop_.Await([&](Done done) { store->Append({{"k", body}}, done); }).ok());
    }
  }
  Status Reread() {
    const auto store = FileStore::Open(OptionsFor(scratch_.path(), loop_));
    return store.ok() ? (*store)->ReadLedger().status() : store.status();
  }

  ScratchFolder scratch_;
  PostQueue loop_;
};

TEST_F(AlteredLedgerTest, ABitFlippedInTheFileNamesTheRow) {
  const fs::path file = scratch_.path() / "run.db";
  std::ifstream in(file, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const size_t at = bytes.find("row3");
  ASSERT_NE(at, std::string::npos) << "a clean close leaves all rows in run.db itself";
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary)
      .seekp(static_cast<std::streamoff>(at))
      .put('s');
  const Status status = Reread();
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_NE(status.message().find("row 3"), std::string::npos) << status;
}

TEST_F(AlteredLedgerTest, TheDatabaseItselfRefusesChangesMadeByAccident) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((scratch_.path() / "run.db").c_str(), &db), SQLITE_OK);
  EXPECT_NE(sqlite3_exec(db, "DELETE FROM events", nullptr, nullptr, nullptr), SQLITE_OK);
  EXPECT_NE(sqlite3_exec(db, "UPDATE events SET body='{}'", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
  EXPECT_TRUE(Reread().ok());
}

TEST_F(AlteredLedgerTest, RowsDroppedOnPurposeShow) {
  Sql(scratch_.path() / "run.db",
      "DROP TRIGGER events_are_never_deleted; DELETE FROM events WHERE seq = 2");
  EXPECT_NE(Reread().message().find("row 2: missing"), std::string::npos) << Reread();
}

TEST_F(AlteredLedgerTest, AReplacedPredecessorHashNamesItsRow) {
  Sql(scratch_.path() / "run.db",
      "DROP TRIGGER events_are_never_changed; "
      "UPDATE events SET prev_hash = upper(prev_hash) WHERE seq = 4");
  EXPECT_NE(Reread().message().find("row 4"), std::string::npos) << Reread();
}

TEST_F(AlteredLedgerTest, AFileThatIsNoDatabaseIsAnErrorNotACrash) {
  std::ofstream(scratch_.path() / "run.db", std::ios::trunc) << "this is no database, only text";
  fs::remove(scratch_.path() / "run.db-wal");
  EXPECT_EQ(Reread().code(), Code::kDataLoss);
}

TEST_F(AlteredLedgerTest, ALedgerOfANewerLayoutIsLeftAlone) {
  Sql(scratch_.path() / "run.db", "PRAGMA user_version = 99");
  const Status status = Reread();
  EXPECT_EQ(status.code(), Code::kFailedPrecondition);
  EXPECT_NE(status.message().find("version 99"), std::string::npos) << status;
}

TEST_F(AlteredLedgerTest, AFolderOfAnOlderLayoutGetsTheViewsOfThisOne) {
  const fs::path file = scratch_.path() / "run.db";
  Sql(file,
      "DROP VIEW rounds; CREATE VIEW rounds AS SELECT 1 AS old; CREATE VIEW gone AS "
      "SELECT 2; PRAGMA user_version = 1");
  EXPECT_TRUE(Reread().ok()) << Reread();
  Sql(file, "SELECT round, adapter_sha256 FROM rounds");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(file.c_str(), &db), SQLITE_OK);
  EXPECT_NE(sqlite3_exec(db, "SELECT * FROM gone", nullptr, nullptr, nullptr), SQLITE_OK);
  sqlite3_close(db);
}

TEST_F(AlteredLedgerTest, ARepairedLedgerEndsBeforeItsFirstBadRowAndTakesNewOnes) {
  const fs::path file = scratch_.path() / "run.db";
  Sql(file,
      "DROP TRIGGER events_are_never_changed; "
      "UPDATE events SET body = '{\"n\":9}' WHERE seq = 4");
  ASSERT_FALSE(Reread().ok());
  const Result<RepairReport> report = RepairLedger(scratch_.path());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->rows, 3U);
  EXPECT_NE(report->damage.find("row 4"), std::string::npos) << report->damage;
  EXPECT_EQ(report->kept, "run.db.damaged-1");
  EXPECT_TRUE(fs::exists(scratch_.path() / report->kept));
  EXPECT_TRUE(Reread().ok()) << Reread();
  const std::unique_ptr<FileStore> store = OpenOrFail(scratch_.path(), loop_);
  ASSERT_TRUE(store);
  ASSERT_TRUE(loop_.Await([&](Done done) { store->Append({{"run-finished", "{}"}}, done); }).ok());
  const Result<std::vector<LedgerEvent>> rows = store->ReadLedger();
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ(rows->size(), 4U);
  EXPECT_EQ(rows->back().kind, "run-finished");
  EXPECT_EQ(RepairLedger(scratch_.path()).status().code(), Code::kAlreadyExists) << "in use";
}

TEST_F(AlteredLedgerTest, AWholeLedgerIsLeftAsItIs) {
  const Result<RepairReport> report = RepairLedger(scratch_.path());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->damage, "");
  EXPECT_TRUE(Reread().ok());
}

TEST_F(AlteredLedgerTest, NothingIsGoneOnFromWhereTheFirstRowIsBad) {
  Sql(scratch_.path() / "run.db",
      "DROP TRIGGER events_are_never_changed; UPDATE events SET kind = 'x' WHERE seq = 1");
  EXPECT_EQ(RepairLedger(scratch_.path()).status().code(), Code::kDataLoss);
  EXPECT_TRUE(fs::exists(scratch_.path() / "run.db")) << "as it was";
}

}  // namespace
}  // namespace weft
