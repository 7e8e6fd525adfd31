// Where a run stands, folded from its ledger: after each event of a run, and for ledgers that
// cannot be.

#include <gtest/gtest.h>

#include "aggregator/recovery.h"
#include "tests/support/run_samples.h"

namespace weft {
namespace {

using testing::SampleEval;
using testing::SampleLedger;
using testing::SampleOpened;
using testing::SamplePublished;
using testing::SampleRun;
using testing::SampleUpdate;

RunPosition At(std::vector<RunEvent> events, size_t count) {
  events.resize(count);
  const Result<RunPosition> position = Replay(SampleLedger(events));
  EXPECT_TRUE(position.ok()) << position.status();
  return position.ok() ? *position : RunPosition{};
}

TEST(ReplayTest, AnEmptyLedgerIsARunThatHasNotStarted) {
  const RunPosition at = At({}, 0);
  EXPECT_FALSE(at.started || at.published || at.open || at.finished || at.best);
  EXPECT_TRUE(at.members.empty());
}

TEST(ReplayTest, EveryStepOfASampleRunIsWhereItSays) {
  const std::vector<RunEvent> run = SampleRun();
  EXPECT_TRUE(At(run, 1).started.has_value());
  EXPECT_EQ(At(run, 2).published->version, RoundId{0});
  EXPECT_EQ(At(run, 4).members, (std::set<ClientId>{{"harbour"}, {"weaver"}}));
  EXPECT_EQ(At(run, 5).reports.at({"harbour"}).loss, 3);
  const RunPosition opened = At(run, 6);
  ASSERT_TRUE(opened.open.has_value());
  EXPECT_EQ(opened.open->attempt, 1u);
  EXPECT_EQ(opened.attempts, 1u);
  const RunPosition missed = At(run, 10);
  EXPECT_FALSE(missed.open.has_value());
  EXPECT_EQ(missed.misses, 1u);
  EXPECT_EQ(missed.attempts, 1u);
  EXPECT_EQ(missed.members, (std::set<ClientId>{{"harbour"}})) << "weaver went silent";
  const RunPosition both = At(run, 16);
  EXPECT_EQ(both.open->attempt, 2u);
  EXPECT_EQ(both.accepted.size(), 2u);
  EXPECT_EQ(both.accepted.at({"weaver"}).blob, "spool/weaver");
  const RunPosition published = At(run, 17);
  EXPECT_EQ(published.published->version, RoundId{1});
  EXPECT_TRUE(published.accepted.empty()) << "they are in this version, never in the next";
  EXPECT_EQ(published.attempts, 0u);
  EXPECT_EQ(published.misses, 0u);
  EXPECT_TRUE(published.reports.empty()) << "of the version before";
  EXPECT_EQ(published.states.size(), 2u);
  const RunPosition end = At(run, run.size());
  EXPECT_EQ(end.reports.size(), 2u);
  EXPECT_EQ(end.server_evaluated->loss, 1.8);
  EXPECT_EQ(end.best->version, RoundId{1});
  EXPECT_EQ(end.finished->state, kRunCompleted);
}

TEST(ReplayTest, ARelayAdoptsWhateverVersionTheAggregatorAboveHasComeTo) {
  const std::vector<RunEvent> events = {RunStarted{},
                                        testing::SampleAdopted(4, "four"),
                                        SampleOpened(5, 1),
                                        SampleUpdate(5, "harbour", 2, 100, "u"),
                                        testing::SampleForwarded(5, "sum"),
                                        testing::SampleAdopted(8, "eight"),
                                        SampleOpened(9, 1)};
  EXPECT_TRUE(At(events, 4).open.has_value());
  const RunPosition forwarded = At(events, 5);
  EXPECT_FALSE(forwarded.open.has_value());
  EXPECT_EQ(forwarded.forwarded->header.num_examples, 20u);
  EXPECT_EQ(forwarded.accepted.size(), 1u) << "should what was forwarded be damaged";
  const RunPosition adopted = At(events, 6);
  EXPECT_EQ(adopted.published->version, RoundId{8});
  EXPECT_TRUE(adopted.accepted.empty());
  EXPECT_FALSE(adopted.forwarded.has_value());
  EXPECT_FALSE(adopted.merged_from.has_value()) << "nothing here to make it again from";
  EXPECT_EQ(adopted.norms, std::vector<double>{1.5});
  EXPECT_EQ(At(events, 7).open->plan.round, RoundId{9});
  const std::vector<RunEvent> back = {RunStarted{}, testing::SampleAdopted(4, "four"),
                                      testing::SampleAdopted(3, "three")};
  EXPECT_EQ(Replay(SampleLedger(back)).status().code(), Code::kDataLoss);
}

TEST(ReplayTest, WhoWasAskedAndHasNotDeliveredIsStillAtIt) {
  RoundOpened second = SampleOpened(2, 1);
  second.plan.cohort[1].asked = {1};
  UpdateAccepted late = SampleUpdate(1, "weaver", 2, 100, "u");
  late.round = {2};
  const std::vector<RunEvent> events = {RunStarted{},
                                        SamplePublished(0, "initial"),
                                        SampleOpened(1, 1),
                                        SampleUpdate(1, "harbour", 2, 100, "u"),
                                        SamplePublished(1, "one"),
                                        second,
                                        late,
                                        SamplePublished(2, "two")};
  EXPECT_EQ(At(events, 3).working.size(), 2u);
  const RunPosition between = At(events, 5);
  ASSERT_EQ(between.working.size(), 1u);
  EXPECT_EQ(between.working.at({"weaver"}).asked, RoundId{1});
  EXPECT_EQ(At(events, 6).working.at({"weaver"}).asked, RoundId{1});
  EXPECT_EQ(At(events, 6).working.at({"harbour"}).asked, RoundId{2});
  EXPECT_EQ(At(events, 7).accepted.count({"weaver"}), 1u);
  const RunPosition end = At(events, 8);
  EXPECT_EQ(end.merged.at({"weaver"}), RoundId{1})
      << "the round that asked, as the client knows it";
  EXPECT_EQ(end.working.size(), 1u);
}

TEST(ReplayTest, ARunThatWasEndedAndStartedAgainGoesOnWithAllItsTries) {
  std::vector<RunEvent> events = {RunStarted{},
                                  SamplePublished(0, "initial"),
                                  SampleOpened(1, 1),
                                  RoundMissed{.round = {1}, .attempt = 1, .reason = "x"},
                                  SampleOpened(1, 2),
                                  SampleUpdate(1, "harbour", 2, 100, "u"),
                                  RoundMissed{.round = {1}, .attempt = 2, .reason = "y"},
                                  RunFinished{.state = kRunFailed, .reason = "y"}};
  const RunPosition failed = At(events, events.size());
  EXPECT_EQ(failed.finished->state, kRunFailed);
  EXPECT_EQ(failed.misses, 0u) << "a new start has its tries back";
  EXPECT_EQ(failed.attempts, 2u) << "but its cohorts are drawn anew";
  EXPECT_EQ(failed.accepted.size(), 1u);
  events.emplace_back(RunResumed{.round = {1}, .software = ""});
  EXPECT_FALSE(At(events, events.size()).finished.has_value());
}

TEST(ReplayTest, ALostUpdateCountsNoLongerAndMayBeAcceptedAgain) {
  std::vector<RunEvent> events = {
      RunStarted{},
      SamplePublished(0, "initial"),
      SampleOpened(1, 1),
      SampleUpdate(1, "harbour", 2, 100, "u"),
      SampleUpdate(1, "weaver", 2, 100, "v"),
      UpdateLost{.round = {1}, .client = {"harbour"}, .blob = "spool/harbour"},
      SampleUpdate(1, "harbour", 2, 100, "w")};
  const RunPosition lost = At(events, 6);
  EXPECT_FALSE(lost.accepted.contains({"harbour"}));
  EXPECT_TRUE(lost.accepted.contains({"weaver"}));
  EXPECT_TRUE(lost.open.has_value());
  const RunPosition again = At(events, 7);
  EXPECT_EQ(again.accepted.size(), 2u);
  EXPECT_EQ(again.accepted.at({"harbour"}).header.payload_sha256, Sha256Hex(AsBytes("w")));
}

TEST(ReplayTest, APosteriorEndsTheRoundThatMeasuredAndNoVersionFollows) {
  PosteriorFitted fitted_now;
  fitted_now.round = {1};
  std::vector<RunEvent> events = {RunStarted{}, SamplePublished(0, "initial"), SampleOpened(1, 1),
                                  SampleUpdate(1, "harbour", 2, 100, "u"), fitted_now};
  EXPECT_TRUE(At(events, 4).open.has_value());
  const RunPosition fitted = At(events, 5);
  EXPECT_FALSE(fitted.open.has_value());
  EXPECT_TRUE(fitted.accepted.empty());
  EXPECT_TRUE(fitted.posterior.has_value());
  EXPECT_EQ(fitted.published->version.number, 0u);
}

TEST(ReplayTest, ReportsOfOlderVersionsAreNotThoseOfTheNewest) {
  std::vector<RunEvent> events = {RunStarted{},
                                  SamplePublished(0, "initial"),
                                  SampleOpened(1, 1),
                                  SampleUpdate(1, "harbour", 2, 100, "u"),
                                  SamplePublished(1, "merged"),
                                  SampleEval(0, "weaver", 1, 10),
                                  ServerEvaluated{.version = {0}, .loss = 9, .label_tokens = 1}};
  const RunPosition at = At(events, events.size());
  EXPECT_TRUE(at.reports.empty());
  EXPECT_FALSE(at.server_evaluated.has_value());
}

TEST(ReplayTest, StatesThatWereRemovedAreForgotten) {
  std::vector<RunEvent> events = {RunStarted{}, SamplePublished(0, "initial"),
                                  SamplePublished(1, "merged"),
                                  BlobsRemoved{.blobs = {"state/round-0", "other"}, .reason = ""}};
  const RunPosition at = At(events, events.size());
  ASSERT_EQ(at.states.size(), 1u);
  EXPECT_EQ(at.states.begin()->first, RoundId{1});
}

TEST(ReplayTest, TheStateAKeptRoundWasMergedFromIsNeverRemoved) {
  RoundPublished kept = SamplePublished(1, "one");
  kept.updates_kept = true;
  std::vector<RunEvent> events = {RunStarted{}, SamplePublished(0, "initial"), kept,
                                  SamplePublished(2, "two")};
  const RunPosition at = At(events, events.size());
  ASSERT_EQ(at.states.size(), 2u) << "whatever a later start of the daemon is set to";
  EXPECT_EQ(at.states.begin()->first, RoundId{1});
}

TEST(ReplayTest, TheNewestSettingsRecordedAreKnown) {
  RunStarted started;
  started.settings_toml = "first";
  std::vector<RunEvent> events = {
      started, RunResumed{.round = {1}, .software = ""},
      RunResumed{.round = {1}, .software = "", .settings_toml = "second"},
      RunResumed{.round = {1}, .software = ""}};
  EXPECT_EQ(At(events, 2).settings_toml, "first");
  EXPECT_EQ(At(events, 4).settings_toml, "second");
}

TEST(ReplayTest, EventsThatCannotFollowAreDamageNamedByRow) {
  const std::vector<std::vector<RunEvent>> bad = {
      {RunStarted{}, SampleOpened(1, 1)},
      {RunStarted{}, SamplePublished(0, "i"), SampleOpened(2, 1)},
      {RunStarted{}, SamplePublished(0, "i"), SamplePublished(2, "m")},
      {RunStarted{}, SamplePublished(0, "i"), SamplePublished(0, "i")},
      {RunStarted{}, SamplePublished(0, "i"), SampleUpdate(2, "harbour", 1, 1, "u")},
      {RunStarted{}, SamplePublished(0, "i"),
       RoundMissed{.round = {3}, .attempt = 1, .reason = ""}},
      {RunStarted{}, SamplePublished(0, "i"), SampleUpdate(1, "harbour", 1, 1, "u"),
       SampleUpdate(1, "harbour", 1, 1, "u")},
      {RunStarted{}, SamplePublished(0, "i"), SampleUpdate(1, "harbour", 1, 1, "u"),
       UpdateLost{.round = {1}, .client = {"weaver"}, .blob = "spool/weaver"}},
      {RunStarted{}, SamplePublished(0, "i"), SampleUpdate(1, "harbour", 1, 1, "u"),
       UpdateLost{.round = {2}, .client = {"harbour"}, .blob = "spool/harbour"}},
      {RunStarted{}, SamplePublished(0, "i"), SampleUpdate(1, "harbour", 1, 1, "u"),
       UpdateLost{.round = {1}, .client = {"harbour"}, .blob = "spool/harbour"},
       SampleUpdate(1, "harbour", 1, 1, "u"), SampleUpdate(1, "harbour", 1, 1, "u")}};
  for (const std::vector<RunEvent>& events : bad) {
    const Result<RunPosition> position = Replay(SampleLedger(events));
    ASSERT_FALSE(position.ok());
    EXPECT_EQ(position.status().code(), Code::kDataLoss);
    const std::string row = "row " + std::to_string(events.size());
    EXPECT_NE(position.status().message().find(row), std::string::npos) << position.status();
  }
}

TEST(ReplayTest, ARowWhoseBodyIsNotItsKindsIsDamage) {
  std::vector<LedgerEvent> ledger = SampleLedger({RunStarted{}});
  ledger[0].body = R"({"run": 7})";
  EXPECT_EQ(Replay(ledger).status().code(), Code::kDataLoss);
}

TEST(ReplayTest, KindsOfTomorrowArePassedOver) {
  std::vector<LedgerEvent> ledger = SampleLedger({RunStarted{}});
  ledger[0].kind = "garden-watered";
  const Result<RunPosition> position = Replay(ledger);
  ASSERT_TRUE(position.ok()) << position.status();
  EXPECT_FALSE(position->started.has_value());
}

}  // namespace
}  // namespace weft
