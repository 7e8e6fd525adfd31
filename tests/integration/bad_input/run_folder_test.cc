// `weft runs …` on what is no run, and on run folders whose ledger or files were cut, overwritten
// or altered: every command says so, and `verify` finds what a reader cannot see.

#include <filesystem>
#include <fstream>
#include <memory>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sqlite3.h>

#include "common/runtime/file_store.h"
#include "tests/integration/bad_input/command.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

const std::vector<std::vector<std::string>> kReaders = {
    {"show"}, {"rounds"}, {"tail"}, {"verify"}, {"export", "--format", "csv"}, {"stop"}};

// Who alters a ledger on purpose does not stop at its triggers.
constexpr const char* kWithoutTriggers =
    "DROP TRIGGER events_are_never_changed; DROP TRIGGER events_are_never_deleted;";

Ran RunsCommand(const std::vector<std::string>& reader, const std::string& folder) {
  std::vector<std::string> arguments = {"runs", reader[0], folder};
  arguments.insert(arguments.end(), reader.begin() + 1, reader.end());
  return Execute("weft", arguments);
}

/// The sample run as its aggregator left it.
class BadRunFolderTest : public ::testing::Test {
 protected:
  void SetUp() override {
    PostQueue loop;
    Result<std::unique_ptr<FileStore>> store = FileStore::Open(
        {.folder = temp_.path(), .post = loop.Poster(), .wall_us = [] { return int64_t{9}; }});
    ASSERT_TRUE(store.ok()) << store.status();
    std::vector<EventDraft> drafts;
    for (const RunEvent& event : SampleRun()) drafts.push_back(ToDraft(event));
    ASSERT_TRUE(loop.Await([&](weft::Done done) { (*store)->Append(drafts, done); }).ok());
    temp_.Write("state/round-0", "initial");
    temp_.Write("state/round-1", "merged");
  }

  [[nodiscard]] std::string folder() const { return temp_.path().string(); }
  [[nodiscard]] Ran Verify() const { return RunsCommand({"verify"}, folder()); }

  void Sql(const std::string& sql) const {
    sqlite3* db = nullptr;
    ASSERT_EQ(sqlite3_open((temp_.path() / "run.db").c_str(), &db), SQLITE_OK);
    char* error = nullptr;
    EXPECT_EQ(sqlite3_exec(db, sql.c_str(), nullptr, nullptr, &error), SQLITE_OK)
        << sql << ": " << (error != nullptr ? error : "");
    sqlite3_free(error);
    sqlite3_close(db);
  }

  TempFolder temp_;
};

TEST_F(BadRunFolderTest, TheUndamagedOneWorksSoThatFailuresBelowHaveTheirReason) {
  for (const auto& reader : kReaders) {
    if (reader[0] == "stop") continue;
    EXPECT_TRUE(Succeeded(RunsCommand(reader, folder())));
  }
  EXPECT_TRUE(Refused(RunsCommand({"stop"}, folder()), {folder(), "has ended already"}));
}

TEST_F(BadRunFolderTest, AFolderThatIsNoRunSaysWhatIsWanted) {
  const TempFolder empty;
  const std::string file = empty.Write("file", "x").string();
  for (const std::string& path : {empty.path().string(), std::string("/no/such"), file}) {
    for (const auto& reader : kReaders) {
      EXPECT_TRUE(Refused(RunsCommand(reader, path), {path, "name a run folder"})) << reader[0];
    }
  }
  EXPECT_TRUE(
      Refused(Execute("weft", {"runs", "list", "/no/such"}), {"/no/such", "no such folder"}));
}

TEST_F(BadRunFolderTest, ADatabaseThatIsCutOrGarbageIsNamedByEveryCommand) {
  const std::string whole = temp_.Read("run.db");
  ASSERT_GT(whole.size(), 8192U);
  for (const std::string& content :
       {std::string(), whole.substr(0, 50), whole.substr(0, 4096), whole.substr(0, 5000),
        std::string(20000, '\x5A'), whole.substr(0, 100) + std::string(20000, '\x5A')}) {
    temp_.Write("run.db", content);
    for (const auto& reader : kReaders) {
      EXPECT_TRUE(Refused(RunsCommand(reader, folder()), {folder() + "/run.db"}))
          << reader[0] << " with " << content.size() << " bytes";
    }
  }
}

TEST_F(BadRunFolderTest, AnotherProgramsDatabaseIsNoRun) {
  fs::remove(temp_.path() / "run.db");
  Sql("CREATE TABLE photos(a)");
  for (const auto& reader : kReaders) {
    EXPECT_TRUE(Refused(RunsCommand(reader, folder()), {folder() + "/run.db"})) << reader[0];
  }
}

TEST_F(BadRunFolderTest, OneDamagedRunDoesNotHideTheOthers) {
  const TempFolder root;
  fs::copy(temp_.path(), root.path() / "good", fs::copy_options::recursive);
  root.Write("bad/run.db", std::string(20000, '\x5A'));
  const Ran list = Execute("weft", {"runs", "list", root.path().string(), "--json"});
  ASSERT_TRUE(Succeeded(list));
  EXPECT_NE(list.err.find("bad/run.db"), std::string::npos) << list.err;
  EXPECT_NE(list.out.find("\"finished:completed\""), std::string::npos) << list.out;
  EXPECT_NE(list.out.find("\"unreadable\""), std::string::npos) << list.out;
  EXPECT_TRUE(Json::accept(list.out)) << list.out;
}

struct Alteration {
  const char* what;
  const char* sql;
  const char* where;
};

class AlteredLedgerTest : public BadRunFolderTest,
                          public ::testing::WithParamInterface<Alteration> {};

TEST_P(AlteredLedgerTest, IsNoticed) {
  Sql(kWithoutTriggers);
  Sql(GetParam().sql);
  EXPECT_TRUE(Refused(Verify(), {"[ledger]", GetParam().where}));
  Ran json = Execute("weft", {"runs", "verify", folder(), "--json"});
  EXPECT_EQ(json.code, 1);
  ASSERT_TRUE(Json::accept(json.out)) << json.out;
  EXPECT_EQ(Json::parse(json.out)["ok"], false);
  EXPECT_TRUE(Refused(RunsCommand({"show"}, folder()), {"[ledger]"}));
}

INSTANTIATE_TEST_SUITE_P(
    EveryWay, AlteredLedgerTest,
    ::testing::Values(
        Alteration{"Body",
                   "UPDATE events SET body = replace(body, 'weaver', 'weaveR')"
                   " WHERE seq = 16",
                   "row 16"},
        Alteration{"Loss", "UPDATE events SET body = replace(body, '2.5', '1.5') WHERE seq = 18",
                   "row 18"},
        Alteration{"Time", "UPDATE events SET wall_us = 5 WHERE seq = 3", "row 3"},
        Alteration{"Kind", "UPDATE events SET kind = 'member-gone' WHERE seq = 3", "row 3"},
        Alteration{"Hash", "UPDATE events SET hash = '00' WHERE seq = 3", "row 3"},
        Alteration{"Link", "UPDATE events SET prev_hash = '00' WHERE seq = 3", "row 3"},
        Alteration{"BodyNull", "UPDATE events SET body = x'00' WHERE seq = 3", "row 3"},
        Alteration{"RowDropped", "DELETE FROM events WHERE seq = 7", "row 7"},
        Alteration{"FirstRowDropped", "DELETE FROM events WHERE seq = 1", "row 1"},
        Alteration{"RowAdded",
                   "INSERT INTO events SELECT 1000, wall_us, kind, body, prev_hash,"
                   " hash FROM events WHERE seq = 3",
                   "row 23"}),
    [](const auto& one) { return one.param.what; });

TEST_F(BadRunFolderTest, RowsCutOffAtTheEndAreNoticedByAHashNotedEarlier) {
  const Ran before = Execute("weft", {"runs", "verify", folder(), "--json"});
  ASSERT_TRUE(Succeeded(before));
  const std::string hash = Json::parse(before.out)["hash"];
  EXPECT_TRUE(Succeeded(RunsCommand({"verify", "--hash", hash}, folder())));
  Sql(kWithoutTriggers);
  Sql("DELETE FROM events WHERE seq = 22");
  EXPECT_TRUE(Succeeded(Verify()));  // a chain that ends earlier is a whole one
  EXPECT_TRUE(Refused(RunsCommand({"verify", "--hash", hash}, folder()),
                      {hash, "rows were dropped at the end"}));
  Sql("DELETE FROM events");
  EXPECT_TRUE(Refused(Verify(), {folder(), "no events", "state/"}));
}

TEST_F(BadRunFolderTest, FilesThatWereAlteredOrRemovedAreNamedByVerify) {
  temp_.Write("state/round-1", "merge!");
  EXPECT_TRUE(Refused(Verify(), {"round-published", "state/round-1", "SHA-256"}));
  fs::remove(temp_.path() / "state" / "round-1");
  EXPECT_TRUE(Refused(Verify(), {"round-published", "state/round-1", "is missing"}));
}

TEST_F(BadRunFolderTest, AnAggregatorDoesNotGoOnWithADamagedLedger) {
  // Enough of a configuration to come as far as the run folder.
  const fs::path example = fs::path(WEFT_SOURCE_DIR) / "examples" / "tiny";
  const TempFolder keys;
  const std::string server = (keys.path() / "server").string();
  ASSERT_TRUE(Succeeded(Execute("weft", {"keys", "new", "--out", server})));
  const auto aggregator = [&] {
    return Execute("weft-aggregator",
                   {(example / "run.toml").string(), "--set", "run.dir=" + folder(), "--set",
                    "evaluate.data=", "--set", "server.bind=tcp://127.0.0.1:*", "--set",
                    "server.secret-key=" + server + ".secret", "--set",
                    "server.allow-list=" + keys.Write("allow.txt", "").string()});
  };
  Sql(kWithoutTriggers);
  Sql("UPDATE events SET wall_us = 5 WHERE seq = 3");
  EXPECT_TRUE(Refused(aggregator(), {"[ledger]", "row 3"}));
  temp_.Write("run.db", std::string(20000, '\x5A'));
  EXPECT_TRUE(Refused(aggregator(), {folder() + "/run.db"}));
  temp_.Write("run.db", "");
  temp_.Write("state/round-0001", "merged");
  EXPECT_TRUE(Refused(aggregator(), {"the ledger has no events", "state/round-"}));
}

TEST_F(BadRunFolderTest, NonsenseFlagsAreRefused) {
  const auto refused = [&](const std::vector<std::string>& arguments,
                           const std::vector<std::string>& words, int code) {
    std::vector<std::string> all = {"runs"};
    all.insert(all.end(), arguments.begin(), arguments.end());
    EXPECT_TRUE(Refused(Execute("weft", all), words, code));
  };
  refused({"rounds", folder(), "--round", "99"}, {"no round 99", "the newest is 1"}, 1);
  refused({"rounds", folder(), "--round", "-1"}, {"--round"}, 2);
  refused({"tail", folder(), "-n", "-1"}, {"--lines"}, 2);
  refused({"export", folder(), "--format", "xml"}, {"--format", "xml"}, 2);
  refused({"show"}, {"RUN"}, 2);
}

}  // namespace
}  // namespace weft::testing
