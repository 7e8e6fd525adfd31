#include "common/runtime/run_verify.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <sqlite3.h>

#include "common/runtime/file_store.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using namespace testing;  // the samples

class RunVerifyTest : public ::testing::Test {
 protected:
  void Write(const std::vector<RunEvent>& events) {
    Result<std::unique_ptr<FileStore>> store = FileStore::Open(
        {.folder = folder(), .post = loop_.Poster(), .wall_us = [] { return int64_t{9}; }});
    ASSERT_TRUE(store.ok()) << store.status();
    std::vector<EventDraft> drafts;
    for (const RunEvent& event : events) drafts.push_back(ToDraft(event));
    ASSERT_TRUE(loop_.Await([&](Done done) { (*store)->Append(drafts, done); }).ok());
  }
  void File(const std::string& name, const std::string& text) {
    fs::create_directories((folder() / name).parent_path());
    std::ofstream(folder() / name, std::ios::binary | std::ios::trunc) << text;
  }
  // The sample run with all its files.
  void WriteWhole() {
    Write(SampleRun());
    File("state/round-0", "initial");
    File("state/round-1", "merged");
  }
  std::string Problem() { return VerifyRun(folder()).status().message(); }
  const fs::path& folder() const { return scratch_.path(); }

  ScratchFolder scratch_;
  PostQueue loop_;
};

TEST_F(RunVerifyTest, AWholeRunPasses) {
  WriteWhole();
  const Result<VerifyReport> report = VerifyRun(folder());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->events, SampleRun().size());
  EXPECT_EQ(report->files, 2u);
  EXPECT_EQ(report->files_spent, 2u) << "the two updates were merged and removed";
  EXPECT_EQ(report->hash.size(), 64u);
}

TEST_F(RunVerifyTest, ASpentUpdateThatIsStillThereMustMatch) {
  WriteWhole();
  File("spool/weaver", "update of weaver");
  EXPECT_EQ(VerifyRun(folder())->files, 3u);
  File("spool/weaver", "update of waever");
  EXPECT_NE(Problem().find("row 16 update-accepted: file spool/weaver: has 16 bytes"),
            std::string::npos)
      << Problem();
}

TEST_F(RunVerifyTest, AFlippedBitInABlobNamesItAndItsRow) {
  WriteWhole();
  File("state/round-0", "initiaL");
  File("state/round-1", "mergeD");
  EXPECT_NE(Problem().find("row 2 round-published: file state/round-0"), std::string::npos)
      << "the first bad row: " << Problem();
}

TEST_F(RunVerifyTest, AMissingBlobIsNamed) {
  WriteWhole();
  fs::remove(folder() / "state/round-1");
  EXPECT_EQ(VerifyRun(folder()).status().code(), Code::kDataLoss);
  EXPECT_NE(Problem().find("state/round-1: is missing"), std::string::npos) << Problem();
}

TEST_F(RunVerifyTest, ABlobRemovedOnRecordIsNotMissed) {
  std::vector<RunEvent> events = SampleRun();
  events.emplace_back(BlobsRemoved{.blobs = {"state/round-0"}, .reason = "keep 1"});
  Write(events);
  File("state/round-1", "merged");
  EXPECT_TRUE(VerifyRun(folder()).ok()) << Problem();
}

TEST_F(RunVerifyTest, AnUpdateOfTheOpenRoundMustBeThere) {
  std::vector<RunEvent> events = SampleRun();
  events.resize(16);  // both updates accepted, nothing published
  Write(events);
  File("state/round-0", "initial");
  File("spool/harbour", "update of harbour");
  EXPECT_NE(Problem().find("spool/weaver: is missing"), std::string::npos) << Problem();
  File("spool/weaver", "update of weaver");
  EXPECT_TRUE(VerifyRun(folder()).ok()) << Problem();
}

TEST_F(RunVerifyTest, AnUpdateThatTheLedgerCallsLostNeedNotBeThere) {
  std::vector<RunEvent> events = SampleRun();
  events.resize(16);
  events.emplace_back(UpdateLost{.round = {1}, .client = {"weaver"}, .blob = "spool/weaver"});
  Write(events);
  File("state/round-0", "initial");
  File("spool/harbour", "update of harbour");
  EXPECT_TRUE(VerifyRun(folder()).ok()) << Problem();
  Write({SampleUpdate(1, "weaver", 1, 300, "another of weaver")});
  EXPECT_NE(Problem().find("row 18 update-accepted: file spool/weaver: is missing"),
            std::string::npos)
      << Problem();
  File("spool/weaver", "another of weaver");
  EXPECT_TRUE(VerifyRun(folder()).ok()) << Problem();
}

TEST_F(RunVerifyTest, FilesOfThePeftFolderAreHashedToo) {
  std::vector<RunEvent> events = SampleRun();
  RoundPublished published = SamplePublished(2, "state two");
  published.peft_files = {{"adapters/round-0002/adapter_config.json", 2, Sha256Hex(AsBytes("{}"))}};
  events.emplace_back(published);
  Write(events);
  File("state/round-0", "initial");
  File("state/round-1", "merged");
  File("state/round-2", "state two");
  File("adapters/round-0002/adapter_config.json", "{ }");
  EXPECT_NE(Problem().find("adapter_config.json"), std::string::npos) << Problem();
  File("adapters/round-0002/adapter_config.json", "{}");
  EXPECT_TRUE(VerifyRun(folder()).ok()) << Problem();
}

TEST_F(RunVerifyTest, AnAlteredRowIsNamedBeforeAnyFile) {
  WriteWhole();
  File("state/round-0", "broken");
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder() / "run.db").c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db,
                         "DROP TRIGGER events_are_never_changed; UPDATE events SET body = "
                         "replace(body, '\"loss\":2.5', '\"loss\":1.5') WHERE seq = 18",
                         nullptr, nullptr, nullptr),
            SQLITE_OK);
  sqlite3_close(db);
  EXPECT_NE(Problem().find("row 18 eval-reported"), std::string::npos) << Problem();
}

TEST_F(RunVerifyTest, ALedgerCannotPointOutsideItsFolder) {
  std::vector<RunEvent> events = SampleRun();
  RoundPublished published = SamplePublished(2, "x");
  published.state.name = "../../etc/passwd";
  events.emplace_back(published);
  Write(events);
  File("state/round-0", "initial");
  File("state/round-1", "merged");
  EXPECT_NE(Problem().find("a component is . or .."), std::string::npos) << Problem();
}

// The views are what people query with a sqlite3 shell: each must give the numbers of the fold.
TEST_F(RunVerifyTest, TheViewsOfTheDatabaseSayTheSame) {
  std::vector<RunEvent> events = SampleRun();
  // An update that was lost is no row, and is not counted.
  events.insert(events.begin() + 15, UpdateLost{.round = {1}, .client = {"harbour"}, .blob = "x"});
  events.insert(events.begin() + 16, SampleUpdate(1, "harbour", 2, 100, "update of harbour"));
  Write(events);
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open((folder() / "run.db").c_str(), &db), SQLITE_OK);
  std::string text;
  const auto collect = [](void* out, int columns, char** values, char**) {
    for (int i = 0; i < columns; ++i) {
      *static_cast<std::string*>(out) += std::string(values[i] == nullptr ? "-" : values[i]) + " ";
    }
    return 0;
  };
  for (const char* sql :
       {"SELECT run, strategy, seed, finished FROM run",
        "SELECT client, kind, rank, reason FROM members",
        "SELECT round, accepted, server_loss, clients_loss, merge_s FROM rounds ORDER BY round",
        "SELECT round, client, rank, train_loss, upload_s FROM updates"}) {
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(db, sql, collect, &text, &error), SQLITE_OK) << sql << error;
    sqlite3_free(error);
    text += "\n";
  }
  sqlite3_close(db);
  EXPECT_EQ(text,
            "demo exact-svd 7 completed \n"
            "weaver member-joined 8 - harbour member-joined 4 - "
            "weaver member-gone - silent for 20 s weaver member-joined 8 - \n"
            "0 0 - 3.0 0.0 1 2 1.8 1.75 0.25 \n"
            "1 harbour 4 2.0 0.2 1 weaver 8 1.0 0.2 \n");
}

}  // namespace
}  // namespace weft
