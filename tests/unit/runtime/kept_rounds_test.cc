// What of a ledger can be merged again, and with what; and that a run folder must still hold it.

#include "common/runtime/kept_rounds.h"

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/runtime/file_store.h"
#include "common/runtime/run_verify.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using namespace testing;  // the samples

KeptRounds Folded(const std::vector<RunEvent>& events) {
  KeptRounds rounds;
  const std::vector<LedgerEvent> rows = SampleLedger(events);
  for (size_t i = 0; i < rows.size(); ++i) {
    const Status status = rounds.Add(rows[i], FromEvent(rows[i]).value());
    EXPECT_TRUE(status.ok()) << status;
  }
  return rounds;
}

/// The sample run, whose only round kept its updates.
std::vector<RunEvent> KeptRun() {
  std::vector<RunEvent> events = SampleRun();
  std::get<RunStarted>(events[0]).settings_toml = "[run]\nseed = 7\n";
  std::get<RoundPublished>(events[16]).updates_kept = true;
  return events;
}

std::vector<std::string> Clients(const KeptRound& round) {
  std::vector<std::string> names;
  for (const UpdateAccepted& update : round.updates) names.push_back(update.header.client.name);
  return names;
}

TEST(KeptRoundsTest, ARunOfBeforeTheSettingKeptNothing) {
  const KeptRounds rounds = Folded(SampleRun());
  EXPECT_TRUE(rounds.rounds().empty());
  EXPECT_EQ(rounds.without_updates(), 1u) << "round 0 merged nothing";
  EXPECT_EQ(rounds.measured(), 0u);
}

TEST(KeptRoundsTest, AKeptRoundHasAllThatItsMergeTook) {
  const KeptRounds rounds = Folded(KeptRun());
  ASSERT_EQ(rounds.rounds().size(), 1u);
  const KeptRound& round = *rounds.rounds().front();
  EXPECT_EQ(round.seq, 17u);
  EXPECT_EQ(round.state_blob, "state/round-0");
  EXPECT_EQ(round.opened.attempt, 2u);
  EXPECT_EQ(Clients(round), (std::vector<std::string>{"harbour", "weaver"}));
  EXPECT_EQ(round.settings_toml, "[run]\nseed = 7\n");
  EXPECT_NE(round.certificate.find("\"error_published\":1e-09"), std::string::npos)
      << round.certificate;
  EXPECT_EQ(rounds.without_updates(), 0u);
}

TEST(KeptRoundsTest, AnUpdateOfAnEarlierTryCountsWhereItsClientIsAskedAgain) {
  std::vector<RunEvent> events = KeptRun();
  const RunEvent harbour = events[14];
  events.erase(events.begin() + 14);
  events.insert(events.begin() + 9, harbour);  // taken in the first try
  RoundOpened without = SampleOpened(1, 3);
  without.plan.cohort.erase(without.plan.cohort.begin());
  EXPECT_EQ(Clients(*Folded(events).rounds().front()),
            (std::vector<std::string>{"harbour", "weaver"}));
  events.insert(events.begin() + 16, without);
  const KeptRounds rounds = Folded(events);
  ASSERT_EQ(rounds.rounds().size(), 1u);
  EXPECT_EQ(Clients(*rounds.rounds().front()), std::vector<std::string>{"weaver"});
}

TEST(KeptRoundsTest, ALostUpdateAndOneOfAnotherRoundDoNotCount) {
  std::vector<RunEvent> events = KeptRun();
  events.insert(events.begin() + 16,
                UpdateLost{.round = {1}, .client = {"weaver"}, .blob = "spool/weaver"});
  EXPECT_EQ(Clients(*Folded(events).rounds().front()), std::vector<std::string>{"harbour"});
}

TEST(KeptRoundsTest, SettingsAreThoseOfTheLastStartBeforeTheMerge) {
  std::vector<RunEvent> events = KeptRun();
  events.insert(events.begin() + 16,
                RunResumed{.round = {1}, .software = "weft", .settings_toml = "[run]\nseed = 8\n"});
  events.insert(events.begin() + 17, RunResumed{.round = {1}, .software = "weft"});
  EXPECT_EQ(Folded(events).rounds().front()->settings_toml, "[run]\nseed = 8\n");
}

TEST(KeptRoundsTest, ABlobTakenAwayOnRecordMakesItARoundWithoutUpdates) {
  for (const char* blob : {"spool/harbour", "state/round-0"}) {
    std::vector<RunEvent> events = KeptRun();
    events.emplace_back(BlobsRemoved{.blobs = {blob}, .reason = "disk"});
    const KeptRounds rounds = Folded(events);
    EXPECT_TRUE(rounds.rounds().empty()) << blob;
    EXPECT_EQ(rounds.without_updates(), 1u);
  }
}

TEST(KeptRoundsTest, ARoundThatMeasuredIsCountedByItsKind) {
  std::vector<RunEvent> events = KeptRun();
  RoundOpened opened = SampleOpened(2, 1);
  opened.plan.training.objective = kMeasureObjective;
  PosteriorFitted fitted;
  fitted.round = {2};
  fitted.version = {1};
  events.insert(events.end() - 1, {RunEvent(opened), SampleUpdate(2, "harbour", 0, 1, "statistics"),
                                   RunEvent(fitted)});
  const KeptRounds rounds = Folded(events);
  EXPECT_EQ(rounds.measured(), 1u);
  EXPECT_EQ(rounds.rounds().size(), 1u);
  EXPECT_EQ(rounds.without_updates(), 0u);
}

TEST(KeptRoundsTest, AKeptRoundThatWasNeverOpenedIsNamed) {
  std::vector<RunEvent> events = {SampleRun()[0], SamplePublished(0, "initial")};
  RoundPublished published = SamplePublished(1, "merged");
  published.updates_kept = true;
  events.emplace_back(published);
  KeptRounds rounds;
  const std::vector<LedgerEvent> rows = SampleLedger(events);
  EXPECT_TRUE(rounds.Add(rows[0], events[0]).ok());
  EXPECT_TRUE(rounds.Add(rows[1], events[1]).ok());
  const Status status = rounds.Add(rows[2], events[2]);
  EXPECT_EQ(status.code(), Code::kDataLoss);
  EXPECT_NE(status.message().find("row 3 round-published: round 1"), std::string::npos) << status;
}

class KeptFolderTest : public ::testing::Test {
 protected:
  void Write(const std::vector<RunEvent>& events) {
    Result<std::unique_ptr<FileStore>> store = FileStore::Open(
        {.folder = folder(), .post = loop_.Poster(), .wall_us = [] { return int64_t{9}; }});
    ASSERT_TRUE(store.ok()) << store.status();
    std::vector<EventDraft> drafts;
    for (const RunEvent& event : events) drafts.push_back(ToDraft(event));
    ASSERT_TRUE(loop_.Await([&](Done done) { (*store)->Append(drafts, done); }).ok());
    File("state/round-0", "initial");
    File("state/round-1", "merged");
    File("spool/harbour", "update of harbour");
    File("spool/weaver", "update of weaver");
  }
  void File(const std::string& name, const std::string& text) {
    fs::create_directories((folder() / name).parent_path());
    std::ofstream(folder() / name, std::ios::binary | std::ios::trunc) << text;
  }
  Result<VerifyReport> Verify() {
    return VerifyRun(folder(), "", [this](const KeptRound& round, const BlobSource& blobs) {
      for (const UpdateAccepted& update : round.updates) {
        read_ += blobs.ReadBlob(update.blob)->view();
        read_ += blobs.ReadPart(update.blob, 0, 6)->view();
      }
      return outcome_;
    });
  }
  const fs::path& folder() const { return scratch_.path(); }

  ScratchFolder scratch_;
  PostQueue loop_;
  Status outcome_;
  std::string read_;
};

TEST_F(KeptFolderTest, EveryKeptRoundIsMergedAgainFromTheFolder) {
  Write(KeptRun());
  const Result<VerifyReport> report = Verify();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(read_, "update of harbourupdateupdate of weaverupdate");
  EXPECT_EQ(report->certificates_recomputed, 1u);
  EXPECT_EQ(report->rounds_without_updates, 0u);
  EXPECT_EQ(report->files, 4u);
  EXPECT_EQ(report->files_spent, 0u);
}

TEST_F(KeptFolderTest, ARoundThatComesOutOtherwiseFailsAndSaysWhere) {
  Write(KeptRun());
  outcome_ = DataLoss("site q: error_published: got 1, wanted 2");
  EXPECT_EQ(Verify().status(), DataLoss("[verify] row 17 round-published: round 1: site q: "
                                        "error_published: got 1, wanted 2"));
}

TEST_F(KeptFolderTest, AKeptUpdateMustBeThereAndWhole) {
  Write(KeptRun());
  File("spool/weaver", "update of waever");
  EXPECT_NE(Verify().status().message().find("row 16 update-accepted: file spool/weaver: has 16"),
            std::string::npos)
      << Verify().status();
  fs::remove(folder() / "spool/weaver");
  EXPECT_NE(Verify().status().message().find("spool/weaver: is missing"), std::string::npos);
  EXPECT_EQ(read_, "") << "nothing is merged from damaged files";
}

TEST_F(KeptFolderTest, ARunThatKeptNothingVerifiesWithoutMerging) {
  Write(SampleRun());
  fs::remove_all(folder() / "spool");
  outcome_ = Internal("not to be asked");
  const Result<VerifyReport> report = Verify();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->certificates_recomputed, 0u);
  EXPECT_EQ(report->rounds_without_updates, 1u);
  EXPECT_EQ(report->files_spent, 2u);
}

}  // namespace
}  // namespace weft
