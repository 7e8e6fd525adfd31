#include "common/runtime/run_view.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/runtime/file_store.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"

namespace weft {
namespace {

using namespace testing;  // the samples

// The view after the first `count` events of the sample run.
RunView ViewAfter(size_t count) {
  RunFold fold;
  const std::vector<LedgerEvent> rows = SampleLedger(SampleRun());
  for (size_t i = 0; i < count; ++i) EXPECT_TRUE(fold.Add(rows[i]).ok());
  return fold.view();
}

RunView WholeView() { return ViewAfter(SampleRun().size()); }

TEST(RunViewTest, TheStateFollowsTheEvents) {
  EXPECT_EQ(ViewAfter(0).state, "pending");
  EXPECT_EQ(ViewAfter(1).state, "starting");
  EXPECT_EQ(ViewAfter(5).state, "starting");
  EXPECT_EQ(ViewAfter(6).state, "running");
  const RunView view = WholeView();
  EXPECT_EQ(view.state, "finished:completed");
  EXPECT_TRUE(view.Finished());
  EXPECT_EQ(view.run, "demo");
  EXPECT_EQ(view.seed, 7u);
  EXPECT_EQ(view.published, 1u);
  EXPECT_EQ(view.started_us, 1'700'000'000'000'000);
  EXPECT_EQ(view.events, SampleRun().size());
}

TEST(RunViewTest, RoundsCountClientsAndWeighLosses) {
  const RunView view = WholeView();
  ASSERT_EQ(view.rounds.size(), 2u);
  EXPECT_EQ(view.rounds[0].round, 0u);
  EXPECT_EQ(view.rounds[0].state, "published");
  EXPECT_EQ(view.rounds[0].clients_loss, 3.0);
  const RoundRow& round = view.rounds[1];
  EXPECT_EQ(round.state, "published");
  EXPECT_EQ(round.attempts, 2u);
  EXPECT_EQ(round.cohort, 2u);
  EXPECT_EQ(round.accepted, 2u);
  EXPECT_EQ(round.dropped, 0u) << "the drop belongs to the attempt before";
  EXPECT_DOUBLE_EQ(*round.train_loss, (2.0 * 100 + 1.0 * 300) / 400);
  EXPECT_DOUBLE_EQ(*round.clients_loss, (2.5 * 100 + 1.5 * 300) / 400);
  EXPECT_EQ(round.evaluators, 2u);
  EXPECT_EQ(round.server_loss, 1.8);
  EXPECT_TRUE(round.best);
  EXPECT_FALSE(view.rounds[0].best);
  EXPECT_EQ(view.best_round, 1u);
  EXPECT_EQ(round.certificate.error_published, 1e-9);
  EXPECT_EQ(round.merge_s, 0.25);
}

TEST(RunViewTest, ShippedBytesStandBesideThoseOfAPlainLora) {
  RunView view = WholeView();
  const uint64_t sent = std::string("update of harbour").size();
  ASSERT_EQ(Shipped(view).size(), 2u);
  const ShippedRow harbour = Shipped(view)[0];
  EXPECT_EQ(harbour.client, "harbour");
  EXPECT_EQ(harbour.method, "lora");
  EXPECT_EQ(harbour.rank, 4);
  EXPECT_EQ(harbour.updates, 1u);
  EXPECT_EQ(harbour.bytes_up, sent);
  EXPECT_EQ(harbour.lora_bytes, 68u);
  EXPECT_DOUBLE_EQ(*harbour.Ratio(), static_cast<double>(sent) / 68);
  // Another method of the same client is a row of its own; what was not accepted is none.
  RoundRow round = view.rounds[1];
  round.clients[0].method = "nola";
  round.clients[1].state = "refused";
  view.rounds.push_back(round);
  ASSERT_EQ(Shipped(view).size(), 3u);
  EXPECT_EQ(Shipped(view)[1].method, "nola");
  view.rounds.back().measures = true;  // statistics are no updates
  EXPECT_EQ(Shipped(view).size(), 2u);
  view.rounds.back().measures = false;
  view.rounds.back().clients[0].lora_bytes = 0;  // of a ledger before it was recorded
  EXPECT_FALSE(Shipped(view)[1].Ratio().has_value());
}

TEST(RunViewTest, AClientsRowHasItsBytesAndPhases) {
  const RunView view = WholeView();
  const ClientRow& harbour = view.rounds[1].clients[0];
  EXPECT_EQ(harbour.client, "harbour");
  EXPECT_EQ(harbour.state, "accepted");
  EXPECT_EQ(harbour.rank, 4);
  EXPECT_EQ(harbour.bytes_down, 2000u) << "both attempts cost the link";
  EXPECT_EQ(harbour.bytes_up, std::string("update of harbour").size());
  EXPECT_EQ(harbour.wait_s, 0.5);
  EXPECT_EQ(harbour.download_s, 0.1);
  EXPECT_EQ(harbour.train_s, 2.0);
  EXPECT_EQ(harbour.upload_s, 0.2);
  EXPECT_EQ(harbour.admit_s, 0.01);
  EXPECT_EQ(harbour.merge_s, 0.25);
  EXPECT_EQ(harbour.evaluate_s, 0.3);
  EXPECT_EQ(harbour.update_norm, 1.5);
  EXPECT_EQ(harbour.eval_loss, 2.5);
  EXPECT_EQ(view.rounds[1].BytesDown(), 4000u);
}

TEST(RunViewTest, ADropIsShownWithItsReasonWhileItsAttemptLasts) {
  const RunView view = ViewAfter(10);
  const RoundRow& round = view.rounds[1];
  EXPECT_EQ(round.state, "failed");
  EXPECT_EQ(round.reason, "1 of 2 updates at the deadline");
  EXPECT_EQ(round.dropped, 1u);
  EXPECT_EQ(round.clients[0].state, "training");
  EXPECT_EQ(round.clients[1].state, "dropped");
  EXPECT_EQ(round.clients[1].reason, "silent (train)");
  ASSERT_EQ(view.members.size(), 2u);
  EXPECT_TRUE(view.members[0].present);
  EXPECT_FALSE(view.members[1].present);
  EXPECT_EQ(view.members[1].reason, "silent for 20 s");
  EXPECT_TRUE(ViewAfter(11).members[1].present) << "it came back";
}

TEST(RunViewTest, RefusedLateAndReplayedUpdates) {
  std::vector<RunEvent> events = SampleRun();
  events.resize(15);  // up to harbour's accepted update
  events.emplace_back(UpdateRefused{
      .round = {1}, .client = {"weaver"}, .code = "invalid-argument", .reason = "NaN in A"});
  events.emplace_back(UpdateRefused{
      .round = {1}, .client = {"harbour"}, .code = "already-exists", .reason = "sent twice"});
  events.emplace_back(UpdateLate{.round = {1}, .client = {"third"}});
  RunFold fold;
  for (const LedgerEvent& row : SampleLedger(events)) ASSERT_TRUE(fold.Add(row).ok());
  const RoundRow& round = fold.view().rounds[1];
  ASSERT_EQ(round.clients.size(), 3u);
  EXPECT_EQ(round.clients[0].state, "accepted") << "a replay does not undo what was taken";
  EXPECT_EQ(round.clients[1].state, "late");
  EXPECT_EQ(round.clients[1].client, "third");
  EXPECT_EQ(round.clients[2].state, "refused");
  EXPECT_EQ(round.clients[2].reason, "invalid-argument: NaN in A");
  EXPECT_EQ(round.accepted + round.late + round.refused, 3u);
}

TEST(RunViewTest, ALostUpdateCountsNoLongerUntilItIsAcceptedAgain) {
  std::vector<RunEvent> events = SampleRun();
  events.resize(16);  // up to both accepted updates
  events.emplace_back(UpdateLost{.round = {1}, .client = {"weaver"}, .blob = "spool/weaver"});
  RunFold fold;
  for (const LedgerEvent& row : SampleLedger(events)) ASSERT_TRUE(fold.Add(row).ok());
  const RoundRow lost = fold.view().rounds[1];
  EXPECT_EQ(lost.accepted, 1u);
  EXPECT_EQ(lost.train_loss, 2) << "harbour's alone";
  EXPECT_EQ(lost.clients[1].state, "asked");
  EXPECT_EQ(lost.clients[1].rank, 8);
  EXPECT_EQ(lost.clients[1].num_examples, 0u);
  EXPECT_EQ(lost.clients[1].bytes_up, 16u) << "they were sent";
  EXPECT_EQ(lost.clients[1].reason, "its update was lost from the spool");
  events.emplace_back(SampleUpdate(1, "weaver", 1, 300, "update of weaver"));
  ASSERT_TRUE(fold.Add(SampleLedger(events).back()).ok());
  EXPECT_EQ(fold.view().rounds[1].accepted, 2u);
  EXPECT_EQ(fold.view().rounds[1].train_loss, 1.25);
  EXPECT_EQ(fold.view().rounds[1].clients[1].bytes_up, 32u);
  EXPECT_TRUE(fold.view().rounds[1].clients[1].reason.empty());
}

TEST(RunViewTest, ARelaysRoundIsForwardedAndThenPublishedAbove) {
  std::vector<RunEvent> events = {RunStarted{}, SampleAdopted(4, "four"), SampleOpened(5, 1),
                                  SampleUpdate(5, "harbour", 2, 100, "u"),
                                  SampleForwarded(5, "sum")};
  const auto view = [&] {
    RunFold fold;
    for (const LedgerEvent& row : SampleLedger(events)) EXPECT_TRUE(fold.Add(row).ok());
    return fold.view();
  };
  ASSERT_EQ(view().rounds.size(), 2u);
  EXPECT_EQ(view().rounds[0].state, "adopted");
  EXPECT_EQ(view().rounds[1].state, "forwarded");
  EXPECT_EQ(view().rounds[1].certificate.error_published, 1e-7);
  EXPECT_EQ(view().rounds[1].certificate.rank, 28);
  EXPECT_EQ(view().published, 4u);
  events.emplace_back(SampleAdopted(5, "five"));
  EXPECT_EQ(view().rounds[1].state, "published");
  EXPECT_EQ(view().rounds[1].certificate.error_published, 1e-7) << "its own, not the one above's";
  EXPECT_EQ(view().rounds[1].merge_s, 0.5);
  events.emplace_back(SampleAdopted(9, "nine"));
  EXPECT_EQ(view().rounds.back().state, "adopted") << "rounds that it had no part in";
}

TEST(RunViewTest, AResumedRunIsRunningAgain) {
  std::vector<RunEvent> events = SampleRun();
  events.emplace_back(RunResumed{.round = {2}, .software = "weft"});
  RunFold fold;
  for (const LedgerEvent& row : SampleLedger(events)) ASSERT_TRUE(fold.Add(row).ok());
  EXPECT_EQ(fold.view().state, "running");
  EXPECT_EQ(fold.view().resumed, 1u);
  EXPECT_FALSE(fold.view().Finished());
  EXPECT_FALSE(fold.view().members[0].present);
}

TEST(RunViewTest, UnknownKindsAreSkippedAndBadBodiesAreNot) {
  RunFold fold;
  EXPECT_TRUE(fold.Add(LedgerEvent{1, 5, "from-the-future", "{}", ""}).ok());
  EXPECT_EQ(fold.view().events, 1u);
  EXPECT_EQ(fold.Add(LedgerEvent{2, 5, "run-started", "{}", ""}).code(), Code::kDataLoss);
}

TEST(RunReaderTest, ItFollowsARunThatIsBeingWritten) {
  const ScratchFolder scratch;
  EXPECT_EQ(RunReader::Open(scratch.path()).status().code(), Code::kNotFound);
  PostQueue loop;
  Result<std::unique_ptr<FileStore>> store = FileStore::Open(
      {.folder = scratch.path(), .post = loop.Poster(), .wall_us = [] { return int64_t{9}; }});
  ASSERT_TRUE(store.ok()) << store.status();
  Result<RunReader> reader = RunReader::Open(scratch.path());
  ASSERT_TRUE(reader.ok()) << reader.status();
  EXPECT_TRUE(reader->Poll()->empty());
  const std::vector<RunEvent> events = SampleRun();
  for (size_t i = 0; i < events.size(); ++i) {
    ASSERT_TRUE(loop.Await([&](Done done) { (*store)->Append({ToDraft(events[i])}, done); }).ok());
    const Result<std::vector<LedgerEvent>> fresh = reader->Poll();
    ASSERT_TRUE(fresh.ok()) << fresh.status();
    ASSERT_EQ(fresh->size(), 1u);
    EXPECT_EQ(fresh->front().seq, i + 1);
  }
  EXPECT_EQ(reader->view().state, "finished:completed");
  EXPECT_EQ(ReadRunView(scratch.path())->rounds.size(), 2u);
}

}  // namespace
}  // namespace weft
