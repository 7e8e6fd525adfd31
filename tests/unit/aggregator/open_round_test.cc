// When a round closes, when it is missed, who is still awaited.

#include "aggregator/open_round.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

using Decision = OpenRound::Decision;

OpenRound RoundOfFour() {
  RoundPlan plan;
  plan.round = RoundId{1};
  plan.deadline_s = 100;
  for (const char* name : {"a", "b", "c", "d"}) plan.cohort.push_back({ClientId{name}, {}});
  return {plan, 1, Seconds(1000)};
}

void Accept(OpenRound& round, const char* name, double at_s) {
  round.Accept(ClientId{name}, SpooledUpdate{}, Seconds(at_s));
}

TEST(OpenRoundTest, WhatItAsksOfEverybodyNamesNobody) {
  RoundPlan plan;
  plan.round = RoundId{3};
  plan.deadline_s = 100;
  plan.cohort = {{ClientId{"a"}, {}}, {ClientId{"b"}, {}}};
  plan.evaluators = {ClientId{"c"}};
  const OpenRound round(plan, 1, Seconds(1000));
  EXPECT_EQ(round.plan(), plan);
  RoundPlan without = plan;
  without.cohort.clear();
  without.evaluators.clear();
  EXPECT_EQ(round.common(), without);
}

TEST(OpenRoundTest, ItClosesAsSoonAsEverybodyDelivered) {
  OpenRound round = RoundOfFour();
  const CohortSettings cohort;
  for (const char* name : {"d", "b", "a"}) Accept(round, name, 1001);
  EXPECT_EQ(round.Judge(cohort, Seconds(1001)), Decision::kWait);
  Accept(round, "c", 1002);
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kClose);
}

TEST(OpenRoundTest, AFullBufferClosesItAtOnce) {
  CohortSettings cohort;
  cohort.buffer = 2;
  OpenRound round = RoundOfFour();
  EXPECT_EQ(round.QuorumSize(cohort), 2U) << "a share of what the buffer holds";
  Accept(round, "a", 1001);
  EXPECT_EQ(round.Judge(cohort, Seconds(1001)), Decision::kWait);
  EXPECT_EQ(round.Judge(cohort, Seconds(1100)), Decision::kMiss);
  Accept(round, "d", 1002);
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kClose);
  cohort.buffer = 9;
  EXPECT_EQ(round.Wanted(cohort), 4U);
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kWait);
}

TEST(OpenRoundTest, AtTheDeadlineTheQuorumDecides) {
  CohortSettings cohort;
  cohort.quorum = 0.5;
  OpenRound round = RoundOfFour();
  EXPECT_EQ(round.QuorumSize(cohort), 2U);
  Accept(round, "a", 1001);
  EXPECT_EQ(round.Judge(cohort, Seconds(1099)), Decision::kWait);
  EXPECT_EQ(round.Judge(cohort, Seconds(1100)), Decision::kMiss);
  Accept(round, "b", 1099);
  EXPECT_EQ(round.Judge(cohort, Seconds(1099)), Decision::kWait);
  EXPECT_EQ(round.Judge(cohort, Seconds(1100)), Decision::kClose);
}

TEST(OpenRoundTest, AQuorumOfNothingStillNeedsOneUpdate) {
  CohortSettings cohort;
  cohort.quorum = 0;
  OpenRound round = RoundOfFour();
  EXPECT_EQ(round.QuorumSize(cohort), 1U);
  EXPECT_EQ(round.Judge(cohort, Seconds(1100)), Decision::kMiss);
}

TEST(OpenRoundTest, GraceRunsFromTheQuorumNotFromTheLastUpdate) {
  CohortSettings cohort;
  cohort.quorum = 0.5;
  cohort.grace_s = 10;
  OpenRound round = RoundOfFour();
  Accept(round, "a", 1001);
  EXPECT_EQ(round.Judge(cohort, Seconds(1050)), Decision::kWait);
  Accept(round, "b", 1050);
  Accept(round, "c", 1058);
  EXPECT_EQ(round.Judge(cohort, Seconds(1059)), Decision::kWait);
  EXPECT_EQ(round.Judge(cohort, Seconds(1060)), Decision::kClose);
}

TEST(OpenRoundTest, NobodyLeftToWaitForEndsItEarly) {
  CohortSettings cohort;
  cohort.quorum = 0.5;
  OpenRound round = RoundOfFour();
  Accept(round, "a", 1001);
  round.Settle(ClientId{"b"}, Standing::kFailed, "NaN loss");
  round.Settle(ClientId{"c"}, Standing::kRefused, "wrong shape");
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kWait);
  round.Settle(ClientId{"d"}, Standing::kDropped, "gone");
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kMiss);
  EXPECT_EQ(round.Describe(), "1 of 4 accepted; b: NaN loss; c: wrong shape; d: gone");
  round.Back(ClientId{"d"});
  EXPECT_EQ(round.Judge(cohort, Seconds(1002)), Decision::kWait) << "it may deliver after all";
  Accept(round, "d", 1003);
  EXPECT_EQ(round.Judge(cohort, Seconds(1003)), Decision::kClose);
}

TEST(OpenRoundTest, WhoIsAwayTooLongIsNamedOnce) {
  OpenRound round = RoundOfFour();
  round.Away(ClientId{"b"}, Seconds(1010));
  round.Away(ClientId{"b"}, Seconds(1020));
  EXPECT_TRUE(round.LongAway(Seconds(1029), Seconds(20)).empty());
  EXPECT_EQ(round.LongAway(Seconds(1031), Seconds(20)), std::vector<ClientId>{{"b"}});
  round.Settle(ClientId{"b"}, Standing::kDropped, "gone");
  EXPECT_TRUE(round.LongAway(Seconds(1031), Seconds(20)).empty());
}

TEST(OpenRoundTest, AnAcceptedUpdateStaysWhateverBecomesOfItsClient) {
  OpenRound round = RoundOfFour();
  Accept(round, "b", 1001);
  round.Away(ClientId{"b"}, Seconds(1002));
  round.Settle(ClientId{"b"}, Standing::kDropped, "gone");
  EXPECT_EQ(round.CountOf(Standing::kAccepted), 1U);
  EXPECT_EQ(round.Updates().size(), 1U);
  EXPECT_EQ(round.Awaited().size(), 3U);
}

}  // namespace
}  // namespace weft
