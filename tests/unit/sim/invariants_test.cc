// The checkers themselves: a run that keeps the rules passes, and each rule broken is noticed.

#include "sim/invariants.h"

#include <functional>

#include <gtest/gtest.h>

#include "common/crypto/digest.h"
#include "common/runtime/memory_store.h"
#include "tests/support/run_samples.h"

namespace weft::sim {
namespace {

using weft::testing::SampleEval;
using weft::testing::SampleLedger;
using weft::testing::SampleOpened;
using weft::testing::SamplePublished;
using weft::testing::SampleUpdate;

Settings Usual() {
  Settings settings;
  settings.cohort.quorum = 1;
  return settings;
}

RoundPublished Merged(uint32_t round, const std::vector<std::string>& clients) {
  RoundPublished published = SamplePublished(round, "merged");
  for (const std::string& client : clients) {
    published.certificate.client_norms.emplace_back(client, 1.0);
  }
  return published;
}

UpdateAccepted Update(uint32_t round, const std::string& client) {
  UpdateAccepted update = SampleUpdate(round, client, 2, 100, "update of " + client);
  for (const ClientPlan& plan : SampleOpened(round, 1).plan.cohort) {
    if (plan.client.name == client) update.header.spec = plan.adapter;
  }
  return update;
}

RoundOpened Opened(uint32_t round, uint32_t attempt = 1) {
  RoundOpened opened = SampleOpened(round, attempt);
  opened.plan.deadline_s = 100;
  return opened;
}

std::vector<RunEvent> GoodRun() {
  return {RunStarted{},
          SamplePublished(0, "initial"),
          Opened(1),
          Update(1, "harbour"),
          RoundMissed{.round = {1}, .attempt = 1, .reason = "weaver is away"},
          Opened(1, 2),
          Update(1, "weaver"),
          Merged(1, {"harbour", "weaver"}),
          SampleEval(1, "harbour", 2.5, 100),
          BestRound{.version = {1}, .loss = 2.5, .by = "clients"},
          Opened(2),
          RunResumed{.round = {2}, .software = ""},
          Update(2, "weaver"),
          Update(2, "harbour"),
          Merged(2, {"harbour", "weaver"}),
          BestRound{.version = {2}, .loss = 2.0, .by = "clients"},
          RunFinished{.state = kRunCompleted, .reason = ""},
          RunResumed{.round = {3}, .software = ""}};
}

Status Check(const std::vector<RunEvent>& events, const Settings& settings = Usual()) {
  const std::vector<LedgerEvent> ledger = SampleLedger(events);
  return CheckRunLedger(ledger, settings);
}

TEST(InvariantsTest, ARunThatKeepsTheRulesPasses) {
  EXPECT_TRUE(Check(GoodRun()).ok()) << Check(GoodRun());
  for (size_t length = 0; length < GoodRun().size(); ++length) {
    std::vector<RunEvent> begun = GoodRun();
    begun.resize(length);
    EXPECT_TRUE(Check(begun).ok()) << length << Check(begun);
  }
}

TEST(InvariantsTest, EachRuleBrokenIsNoticed) {
  struct Case {
    const char* what;
    std::function<void(std::vector<RunEvent>&)> spoil;
  };
  const auto insert = [](std::vector<RunEvent>& events, size_t at, RunEvent event) {
    events.insert(events.begin() + static_cast<std::ptrdiff_t>(at), std::move(event));
  };
  const std::vector<Case> cases = {
      {"a version is skipped",
       [](auto& e) {
         e[14] = Merged(3, {"harbour", "weaver"});
       }},
      {"a version is published twice",
       [](auto& e) {
         e[14] = Merged(1, {"harbour", "weaver"});
       }},
      {"a merged update was not accepted", [](auto& e) { e.erase(e.begin() + 12); }},
      {"an accepted update was not merged", [](auto& e) { e[14] = Merged(2, {"harbour"}); }},
      {"an update counts twice", [&](auto& e) { insert(e, 4, Update(1, "harbour")); }},
      {"an update of a round that is over", [&](auto& e) { insert(e, 8, Update(1, "weaver")); }},
      {"an update of a round to come", [&](auto& e) { insert(e, 4, Update(2, "weaver")); }},
      {"an update of a stranger",
       [&](auto& e) {
         UpdateAccepted stray = Update(1, "harbour");
         stray.header.client = {"mallory"};
         insert(e, 4, stray);
       }},
      {"an update of another rank",
       [](auto& e) { std::get<UpdateAccepted>(e[6]).header.spec.rank = 64; }},
      {"a round is opened while one is open", [&](auto& e) { insert(e, 3, Opened(1, 2)); }},
      {"a round is opened out of turn", [](auto& e) { e[10] = Opened(3); }},
      {"a round is opened before there is anything", [](auto& e) { e.erase(e.begin() + 1); }},
      {"a version without a round", [](auto& e) { e.erase(e.begin() + 10); }},
      {"a round with its quorum is missed",
       [&](auto& e) { insert(e, 7, RoundMissed{.round = {1}, .attempt = 2, .reason = ""}); }},
      {"the best loss rises", [](auto& e) { std::get<BestRound>(e[15]).loss = 2.75; }},
      {"something happens after the end",
       [&](auto& e) { insert(e, 17, SampleEval(2, "harbour", 2, 100)); }},
      {"a round outlives its deadline",
       [](auto& e) { std::get<RoundOpened>(e[5]).plan.deadline_s = -2; }},
  };
  for (const Case& one : cases) {
    std::vector<RunEvent> events = GoodRun();
    one.spoil(events);
    const Status status = Check(events);
    EXPECT_EQ(status.code(), Code::kInternal) << one.what;
    EXPECT_NE(status.message().find("[invariant] row "), std::string::npos) << status;
  }
}

TEST(InvariantsTest, WhoComesLateCountsOnceAndAsPlanned) {
  Settings settings = Usual();
  settings.cohort.buffer = 1;
  settings.cohort.max_staleness = 1;
  settings.cohort.staleness_exponent = 1;
  RoundOpened second = Opened(2);
  second.plan.cohort[1].asked = {1};
  UpdateAccepted late = Update(1, "weaver");
  late.round = {2};
  RoundPublished merged = Merged(2, {"harbour", "weaver"});
  merged.certificate.client_coefficients = {{"harbour", 0.5}, {"weaver", 0.25}};
  const std::vector<RunEvent> good = {RunStarted{},
                                      SamplePublished(0, "initial"),
                                      Opened(1),
                                      Update(1, "harbour"),
                                      Merged(1, {"harbour"}),
                                      second,
                                      Update(2, "harbour"),
                                      late,
                                      merged};
  EXPECT_TRUE(Check(good, settings).ok()) << Check(good, settings);
  std::vector<RunEvent> e = good;
  std::get<RoundPublished>(e[8]).certificate.client_coefficients[1].second = 0.5;
  EXPECT_FALSE(Check(e, settings).ok()) << "a late update that counts in full";
  e = good;
  std::get<RoundPublished>(e[8]).certificate.client_coefficients.clear();
  EXPECT_FALSE(Check(e, settings).ok()) << "or of which nothing is said";
  e = good;
  std::get<RoundOpened>(e[5]).plan.cohort[1].asked = {};
  EXPECT_FALSE(Check(e, settings).ok()) << "an update that this round did not ask for";
  e = good;
  std::get<UpdateAccepted>(e[6]).header.round = {1};
  std::get<UpdateAccepted>(e[6]).round = {2};
  EXPECT_FALSE(Check(e, settings).ok()) << "one that is in a version already";
  settings.cohort.max_staleness = 0;
  EXPECT_FALSE(Check(good, settings).ok()) << "one that is too late";
}

TEST(InvariantsTest, AnUpdateThatWasLostMayBeAcceptedAgain) {
  const UpdateLost lost{.round = {1}, .client = {"harbour"}, .blob = "spool/harbour"};
  std::vector<RunEvent> events = {RunStarted{},
                                  SamplePublished(0, "initial"),
                                  Opened(1),
                                  Update(1, "harbour"),
                                  lost,
                                  Update(1, "weaver"),
                                  Update(1, "harbour"),
                                  Merged(1, {"harbour", "weaver"})};
  EXPECT_TRUE(Check(events).ok()) << Check(events);
  std::vector<RunEvent> merged_all_the_same = events;
  merged_all_the_same.erase(merged_all_the_same.begin() + 6);
  EXPECT_FALSE(Check(merged_all_the_same).ok());
  std::vector<RunEvent> never_counted = events;
  std::get<UpdateLost>(never_counted[4]).client = {"weaver"};
  EXPECT_FALSE(Check(never_counted).ok());
  events.emplace_back(lost);
  EXPECT_FALSE(Check(events).ok()) << "its round is over";
}

TEST(InvariantsTest, TheQuorumIsTheSettings) {
  std::vector<RunEvent> events = {RunStarted{}, SamplePublished(0, "initial"), Opened(1),
                                  Update(1, "harbour"), Merged(1, {"harbour"})};
  EXPECT_FALSE(Check(events).ok());
  Settings half = Usual();
  half.cohort.quorum = 0.5;
  EXPECT_TRUE(Check(events, half).ok()) << Check(events, half);
}

TEST(InvariantsTest, ADeadlineCountsAnewFromARestart) {
  // Ledger rows are a second apart: the second round takes four of them.
  std::vector<RunEvent> events = GoodRun();
  std::get<RoundOpened>(events[10]).plan.deadline_s = 0.5;
  EXPECT_TRUE(Check(events).ok()) << "three seconds and a half after the restart: within the slack";
  events.erase(events.begin() + 11);  // no restart: four seconds after the opening
  events.insert(events.begin() + 11, SampleEval(1, "weaver", 2.5, 100));
  EXPECT_FALSE(Check(events).ok());
}

// ---- disks and messages ----

class CheckerTest : public ::testing::Test {
 protected:
  // The sample's blobs hold their own names' text, as its digests say.
  void Write(MemoryStore& store, const std::vector<RunEvent>& events) {
    std::vector<EventDraft> drafts;
    for (const RunEvent& event : events) drafts.push_back(ToDraft(event));
    store.Append(drafts, [](const Status&) {});
  }
  void Put(MemoryStore& store, const std::string& name, const std::string& text) {
    store.WriteBlob(name, Blob::Copy(text), [](const Status&) {});
  }
  static MemoryStore::Options Inline() {
    return {.post = [](std::function<void()> callback) { callback(); },
            .wall_us = [] { return int64_t{1}; },
            .fault = {}};
  }

  MemoryStore store_{Inline()};
  InvariantChecker checker_{Usual()};
};

TEST_F(CheckerTest, WhatTheLedgerSpeaksOfMustBeThere) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial"), Opened(1), Update(1, "harbour")});
  Put(store_, "state/round-0", "initial");
  Put(store_, "spool/harbour", "update of harbour");
  checker_.Look(store_);
  EXPECT_TRUE(checker_.status().ok()) << checker_.status();
  Put(store_, "spool/harbour", "update of harbouR");
  checker_.Look(store_);
  EXPECT_NE(checker_.status().message().find("spool/harbour"), std::string::npos);
  EXPECT_EQ(checker_.looks(), 2u);
}

TEST_F(CheckerTest, ASimulatedDiskLosesNoUpdate) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial"), Opened(1), Update(1, "harbour"),
                 UpdateLost{.round = {1}, .client = {"harbour"}, .blob = "spool/harbour"}});
  Put(store_, "state/round-0", "initial");
  checker_.Look(store_);
  EXPECT_NE(checker_.status().message().find("row 5 update-lost: blob spool/harbour of harbour"),
            std::string::npos)
      << checker_.status();
}

TEST_F(CheckerTest, AMissingStateIsNoticed) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial")});
  checker_.Look(store_);
  EXPECT_NE(checker_.status().message().find("state/round-0"), std::string::npos);
}

TEST_F(CheckerTest, TheBestVersionsStateIsKeptThoughItIsOld) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial"),
                 BestRound{.version = {0}, .loss = 1, .by = "clients"}, Opened(1),
                 Update(1, "harbour"), Update(1, "weaver"), Merged(1, {"harbour", "weaver"})});
  Put(store_, "state/round-1", "merged");
  checker_.Look(store_);
  EXPECT_NE(checker_.status().message().find("state/round-0"), std::string::npos)
      << checker_.status();
}

TEST_F(CheckerTest, WhatARoundKeptMustStayWithTheStateItWasMergedFrom) {
  RoundPublished kept = Merged(1, {"harbour", "weaver"});
  kept.updates_kept = true;
  Write(store_, {RunStarted{}, SamplePublished(0, "initial"), Opened(1), Update(1, "harbour"),
                 Update(1, "weaver"), kept});
  Put(store_, "state/round-1", "merged");
  Put(store_, "spool/harbour", "update of harbour");
  Put(store_, "spool/weaver", "update of weaver");
  InvariantChecker without_state{Usual()};
  without_state.Look(store_);
  EXPECT_NE(without_state.status().message().find("state/round-0"), std::string::npos)
      << without_state.status();
  Put(store_, "state/round-0", "initial");
  checker_.Look(store_);
  EXPECT_TRUE(checker_.status().ok()) << checker_.status();
  store_.RemoveBlob("spool/weaver", [](const Status&) {});
  checker_.Look(store_);
  EXPECT_NE(checker_.status().message().find("spool/weaver"), std::string::npos);
}

TEST_F(CheckerTest, ALedgerThatLostRowsIsNoticed) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial")});
  Put(store_, "state/round-0", "initial");
  checker_.Look(store_);
  ASSERT_TRUE(checker_.status().ok()) << checker_.status();
  MemoryStore shorter(Inline());
  Write(shorter, {RunStarted{}});
  checker_.Look(shorter);
  EXPECT_NE(checker_.status().message().find("some are gone"), std::string::npos);
}

TEST_F(CheckerTest, AnAcknowledgementNeedsARowOnDisk) {
  Write(store_, {RunStarted{}, SamplePublished(0, "initial"), Opened(1), Update(1, "harbour")});
  Put(store_, "state/round-0", "initial");
  Put(store_, "spool/harbour", "update of harbour");
  const UpdateVerdict good{.round = {1}, .code = Code::kOk, .reason = ""};
  checker_.OnSent({"harbour"}, good, store_);
  checker_.OnSent({"weaver"},
                  UpdateVerdict{.round = {1}, .code = Code::kDeadlineExceeded, .reason = ""},
                  store_);
  checker_.OnSent({"weaver"}, Heartbeat{}, store_);
  EXPECT_TRUE(checker_.status().ok()) << checker_.status();
  checker_.OnSent({"weaver"}, good, store_);
  EXPECT_NE(checker_.status().message().find("weaver is told"), std::string::npos);
}

}  // namespace
}  // namespace weft::sim
