// The `weft runs` and `weft config` commands as a script sees them: standard output is a pipe here.

#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/run_rows.h"
#include "cli/set_up.h"
#include "common/config/load.h"
#include "common/runtime/file_store.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;
using weft::testing::PostQueue;
using weft::testing::SampleRun;
using weft::testing::ScratchFolder;
using Json = nlohmann::json;

std::vector<std::string> Fields(const std::string& line) {
  std::vector<std::string> fields;
  std::istringstream in(line);
  for (std::string field; std::getline(in, field, '\t');) fields.push_back(field);
  return fields;
}

class RunsTest : public ::testing::Test {
 protected:
  std::unique_ptr<FileStore> Open(const fs::path& folder) {
    auto store = FileStore::Open({.folder = folder, .post = loop_.Poster(), .wall_us = [] {
                                    return int64_t{1'700'000'000'000'000};
                                  }});
    EXPECT_TRUE(store.ok()) << store.status();
    return std::move(store).value();
  }
  std::unique_ptr<FileStore> Write(const fs::path& folder, const std::vector<RunEvent>& events) {
    std::unique_ptr<FileStore> store = Open(folder);
    std::vector<EventDraft> drafts;
    for (const RunEvent& event : events) drafts.push_back(ToDraft(event));
    EXPECT_TRUE(loop_.Await([&](Done done) { store->Append(drafts, done); }).ok());
    for (const auto& [name, text] :
         {std::pair("state/round-0", "initial"), std::pair("state/round-1", "merged")}) {
      EXPECT_TRUE(
          loop_.Await([&](Done done) { store->WriteBlob(name, Blob::Copy(text), done); }).ok());
    }
    return store;
  }

  ScratchFolder scratch_;
  PostQueue loop_;
  std::string folder_ = (scratch_.path() / "demo").string();
};

TEST_F(RunsTest, ListShowsEveryRunBelowARootAndADamagedOneToo) {
  Write(folder_, SampleRun());
  std::vector<RunEvent> going = SampleRun();
  going.resize(6);
  const auto store = Write(scratch_.path() / "deep" / "er", going);
  fs::create_directories(scratch_.path() / "broken");
  std::ofstream(scratch_.path() / "broken" / "run.db") << "no database at all, but some text";
  const Outcome table = Execute(SetUpRunsList, {scratch_.path().string()});
  ASSERT_TRUE(table.status.ok()) << table.status;
  const std::vector<std::string> lines = Lines(table.out);
  ASSERT_EQ(lines.size(), 4u) << table.out;
  EXPECT_EQ(Fields(lines[0]).front(), "FOLDER");
  EXPECT_EQ(Fields(lines[1])[2], "unreadable");
  EXPECT_NE(table.err.find("broken"), std::string::npos);
  const std::vector<std::string> deep = Fields(lines[2]);
  EXPECT_EQ(deep[2], "running");
  EXPECT_EQ(deep.back(), std::to_string(::getpid())) << "this process holds the folder";
  const std::vector<std::string> demo = Fields(lines[3]);
  EXPECT_EQ(demo[0], folder_);
  EXPECT_EQ(demo[2], "finished:completed");
  EXPECT_EQ(demo[3], "1/1");
  EXPECT_EQ(demo[6], "1.75");
  EXPECT_EQ(demo.back(), "-");

  const Json json = Json::parse(Execute(SetUpRunsList, {scratch_.path().string(), "--json"}).out);
  ASSERT_EQ(json["runs"].size(), 3u);
  EXPECT_EQ(json["runs"][2]["best_round"], 1);
  EXPECT_EQ(json["runs"][1]["aggregator_pid"], ::getpid());
  EXPECT_EQ(Execute(SetUpRunsList, {"/no/such/root"}).status.code(), Code::kNotFound);
}

TEST_F(RunsTest, ShowNamesStateBestAndMembers) {
  Write(folder_, SampleRun());
  const Outcome shown = Execute(SetUpRunsShow, {folder_});
  ASSERT_TRUE(shown.status.ok()) << shown.status;
  EXPECT_NE(shown.out.find("state\tfinished:completed\n"), std::string::npos) << shown.out;
  EXPECT_NE(shown.out.find("best\tround 1, loss 1.7500 by clients\n"), std::string::npos);
  EXPECT_NE(shown.out.find("\nharbour\tyes\t4\tcpu\t"), std::string::npos) << shown.out;
  const Json json = Json::parse(Execute(SetUpRunsShow, {folder_, "--json"}).out);
  EXPECT_EQ(json["seed"], 7);
  EXPECT_EQ(json["members"][1]["client"], "weaver");
}

TEST_F(RunsTest, RoundsGivePerRoundAndPerClientNumbers) {
  Write(folder_, SampleRun());
  const std::vector<std::string> rounds = Lines(Execute(SetUpRunsRounds, {folder_}).out);
  ASSERT_EQ(rounds.size(), 3u);
  const std::vector<std::string> one = Fields(rounds[2]);
  EXPECT_EQ(one[0], "1");
  EXPECT_EQ(one[1], "published");
  EXPECT_EQ(one[2], "2/2");
  EXPECT_EQ(one[5], "1.25");
  EXPECT_EQ(one[6], "1.75");
  EXPECT_EQ(one[7], "1.8");
  EXPECT_EQ(one[8], "*");
  EXPECT_EQ(one[11], "4000");

  const std::vector<std::string> clients =
      Lines(Execute(SetUpRunsRounds, {folder_, "--round", "1"}).out);
  ASSERT_EQ(clients.size(), 3u);
  const std::vector<std::string> wanted = {"1",   "harbour", "accepted", "4",   "10",  "2",
                                           "2.5", "2000",    "17",       "0.5", "0.1", "2",
                                           "0.2", "0.01",    "0.25",     "0.3", "1.5", "-"};
  EXPECT_EQ(Fields(clients[1]), wanted);
  EXPECT_EQ(Lines(Execute(SetUpRunsRounds, {folder_, "--clients"}).out).size(), 4u);

  const Json json = Json::parse(Execute(SetUpRunsRounds, {folder_, "--json"}).out);
  EXPECT_EQ(json["rounds"][1]["clients"][0]["train_loss"], 2.0);
  EXPECT_EQ(json["rounds"][1]["certificate"]["error_published"], 1e-9);
  EXPECT_EQ(json["rounds"][0]["server_loss"], nullptr);
  EXPECT_EQ(Execute(SetUpRunsRounds, {folder_, "--round", "9"}).status.code(), Code::kNotFound);
}

TEST_F(RunsTest, TailShowsTheNewestEventsAndEndsWithTheRun) {
  Write(folder_, SampleRun());
  const Outcome tail = Execute(SetUpRunsTail, {folder_, "-n", "3", "-f"});
  ASSERT_TRUE(tail.status.ok()) << tail.status;
  const std::vector<std::string> lines = Lines(tail.out);
  ASSERT_EQ(lines.size(), 3u) << tail.out;
  EXPECT_EQ(lines[0],
            "20\t2023-11-14 22:13:20\tserver-evaluated\tround 1: aggregator evaluates: loss "
            "1.8000 on 50 tokens");
  EXPECT_EQ(Fields(lines[2])[3], "run finished: completed");
  const Outcome json = Execute(SetUpRunsTail, {folder_, "-n", "1", "--json"});
  EXPECT_EQ(Json::parse(json.out)["body"]["state"], "completed");
}

TEST_F(RunsTest, EveryKindOfEventHasItsOwnWords) {
  for (const LedgerEvent& event : weft::testing::SampleLedger(SampleRun())) {
    const std::string text = EventText(event);
    EXPECT_FALSE(text.empty());
    EXPECT_EQ(text.find('{'), std::string::npos) << event.kind << ": " << text;
  }
  EXPECT_EQ(EventText({1, 0, "from-the-future", "{\"a\":1}", ""}), "from-the-future {\"a\":1}");
}

TEST_F(RunsTest, VerifyPassesAWholeRunAndFailsAnAlteredOne) {
  Write(folder_, SampleRun());
  const Outcome good = Execute(SetUpRunsVerify, {folder_});
  EXPECT_TRUE(good.status.ok()) << good.status;
  EXPECT_EQ(good.out.substr(0, 22), "ok: 22 events, 2 files");
  std::ofstream(fs::path(folder_) / "state/round-1") << "Merged";
  const Outcome bad = Execute(SetUpRunsVerify, {folder_, "--json"});
  EXPECT_EQ(bad.status.code(), Code::kDataLoss) << "exit code 1";
  EXPECT_EQ(Json::parse(bad.out)["ok"], false);
  EXPECT_NE(Json::parse(bad.out)["error"].get<std::string>().find("state/round-1"),
            std::string::npos);
}

TEST_F(RunsTest, ExportWritesCsvAndJsonLinesWithTheSameNumbers) {
  std::vector<RunEvent> events = SampleRun();
  events.insert(events.begin() + 16, UpdateRefused{.round = {1},
                                                   .client = {"third"},
                                                   .code = "invalid-argument",
                                                   .reason = "A is \"bad\",\nso no"});
  Write(folder_, events);
  const Outcome csv = Execute(SetUpRunsExport, {folder_});
  ASSERT_TRUE(csv.status.ok()) << csv.status;
  EXPECT_NE(csv.out.find("demo,1,harbour,accepted,4,10,100,0,2,2.5,2000,17,0.5,0.1,2,0.2,0.01,"
                         "0.25,0.3,1.5,,lora,68\r\n"),
            std::string::npos)
      << csv.out;
  EXPECT_NE(csv.out.find("\"invalid-argument: A is \"\"bad\"\",\nso no\",,0\r\n"),
            std::string::npos);

  const std::vector<std::string> jsonl =
      Lines(Execute(SetUpRunsExport, {folder_, "--format", "jsonl"}).out);
  ASSERT_EQ(jsonl.size(), 4u);
  EXPECT_EQ(Json::parse(jsonl[1])["bytes_up"], 17);
  EXPECT_EQ(Lines(Execute(SetUpRunsExport, {folder_, "--what", "rounds"}).out).size(), 3u);
  EXPECT_EQ(Lines(Execute(SetUpRunsExport, {folder_, "--what", "events", "--format", "jsonl"}).out)
                .size(),
            events.size());

  const std::string file = (scratch_.path() / "rows.csv").string();
  EXPECT_TRUE(Execute(SetUpRunsExport, {folder_, "--out", file}).status.ok());
  std::ifstream in(file, std::ios::binary);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), csv.out);
  EXPECT_FALSE(Execute(SetUpRunsExport, {folder_, "--out", "/no/such/folder/x"}).status.ok());
  EXPECT_THROW((void)Execute(SetUpRunsExport, {folder_, "--format", "xml"}), CLI::ParseError);
}

TEST_F(RunsTest, StopLeavesARequestOnlyWhereAnAggregatorIsAtWork) {
  std::vector<RunEvent> going = SampleRun();
  going.resize(6);
  auto store = Write(folder_, going);
  const mode_t before = ::umask(077);
  const Outcome stop = Execute(SetUpRunsStop, {folder_, "--reason", "enough"});
  ::umask(before);
  ASSERT_TRUE(stop.status.ok()) << stop.status;
  EXPECT_NE(fs::status(fs::path(folder_) / kStopRequestFile).permissions() & fs::perms::others_read,
            fs::perms::none)
      << "an aggregator of another user must be able to read it";
  std::ifstream in(fs::path(folder_) / kStopRequestFile);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(in), {}), "enough");
  store.reset();
  EXPECT_EQ(Execute(SetUpRunsStop, {folder_}).status.code(), Code::kFailedPrecondition);
  const std::string ended = (scratch_.path() / "ended").string();
  const auto held = Write(ended, SampleRun());
  EXPECT_NE(Execute(SetUpRunsStop, {ended}).status.message().find("has ended already"),
            std::string::npos);
}

TEST_F(RunsTest, AFolderWithoutARunIsAnError) {
  const std::string empty = scratch_.path().string();
  for (const auto set_up : {SetUpRunsShow, SetUpRunsRounds, SetUpRunsTail, SetUpRunsVerify,
                            SetUpRunsExport, SetUpRunsStop}) {
    const Status status = Execute(set_up, {empty}).status;
    EXPECT_EQ(status.code(), Code::kNotFound);
    EXPECT_NE(status.message().find("name a run folder"), std::string::npos) << status;
  }
  EXPECT_FALSE(fs::exists(fs::path(empty) / "run.db")) << "looking must not make one";
}

TEST_F(RunsTest, ConfigShowPrintsWhatIsInEffect) {
  const std::string file = (scratch_.path() / "run.toml").string();
  std::ofstream(file) << "[train]\nlr = 0.5\n";
  const Outcome shown = Execute(
      SetUpConfigShow, {file, "--changed", "--set", "run.seed=3", "--set", "adapter.rank=2"});
  ASSERT_TRUE(shown.status.ok()) << shown.status;
  EXPECT_EQ(shown.out, "[run]\nseed = 3\n\n[adapter]\nrank = 2\n\n[train]\nlr = 0.5\n");
  EXPECT_EQ(Execute(SetUpConfigReference, {}).out, SettingsReference());
  EXPECT_FALSE(Execute(SetUpConfigShow, {file, "--set", "train.lrr=1"}).status.ok());
}

}  // namespace
}  // namespace weft::cli
