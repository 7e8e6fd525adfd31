// The table of members: who is here, who is expected, who has gone quiet.

#include "aggregator/members.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

using namespace std::chrono_literals;

Capabilities Offer(int64_t rank) {
  Capabilities offer;
  offer.rank_max = rank;
  return offer;
}

TEST(MembersTest, WhoJoinsIsPresentUntilItLeavesAndIsRememberedAfterwards) {
  Members members;
  EXPECT_FALSE(members.Present({"a"}));
  EXPECT_EQ(members.Find({"a"}), nullptr);
  members.Join({"b"}, Offer(4), 1s);
  members.Join({"a"}, Offer(8), 2s);
  EXPECT_EQ(members.PresentNames(), (std::vector<ClientId>{{"a"}, {"b"}}));
  members.Leave({"b"});
  EXPECT_EQ(members.CountPresent(), 1u);
  EXPECT_FALSE(members.Present({"b"}));
  ASSERT_NE(members.Find({"b"}), nullptr);
  EXPECT_EQ(members.Find({"b"})->offer.rank_max, 4);
  members.Leave({"nobody"});
}

TEST(MembersTest, ANewJoinReplacesWhatWasOfferedAndWhatWasDone) {
  Members members;
  members.Join({"a"}, Offer(4), 1s);
  members.Find({"a"})->phase = "train";
  members.Find({"a"})->busy_with = RoundId{3};
  members.Leave({"a"});
  members.Join({"a"}, Offer(16), 9s);
  EXPECT_TRUE(members.Present({"a"}));
  EXPECT_EQ(members.CountPresent(), 1u);
  EXPECT_EQ(members.Find({"a"})->offer.rank_max, 16);
  EXPECT_EQ(members.Find({"a"})->phase, "wait");
  EXPECT_EQ(members.Find({"a"})->busy_with, RoundId{});
  EXPECT_EQ(members.Find({"a"})->heard, Nanos(9s));
}

TEST(MembersTest, ComingOrLeavingTwiceCountsOnce) {
  Members members;
  members.Join({"a"}, Offer(4), 1s);
  members.Join({"a"}, Offer(4), 2s);
  EXPECT_EQ(members.CountPresent(), 1u);
  members.Leave({"a"});
  members.Leave({"a"});
  EXPECT_EQ(members.CountPresent(), 0u);
}

TEST(MembersTest, TheSilentAreThosePresentAndNotHeardForLongerThanAllowed) {
  Members members;
  members.Join({"a"}, Offer(1), 0s);
  members.Join({"b"}, Offer(1), 5s);
  members.Join({"c"}, Offer(1), 0s);
  members.Leave({"c"});
  EXPECT_TRUE(members.Silent(10s, 10s).empty()) << "exactly as long is not longer";
  EXPECT_EQ(members.Silent(11s, 10s), (std::vector<ClientId>{{"a"}}));
  EXPECT_EQ(members.Silent(60s, 10s), (std::vector<ClientId>{{"a"}, {"b"}}));
}

TEST(MembersTest, TheExpectedAreMissedUntilTheyComeOrNobodyIsExpected) {
  Members members;
  members.Join({"here"}, Offer(1), 0s);
  for (const char* name : {"here", "z", "a"}) members.Expect({name});
  EXPECT_EQ(members.Missing(), (std::set<ClientId>{{"a"}, {"z"}}));
  members.Join({"a"}, Offer(1), 1s);
  EXPECT_EQ(members.Missing(), (std::set<ClientId>{{"z"}}));
  members.Leave({"a"});
  EXPECT_EQ(members.Missing(), (std::set<ClientId>{{"z"}})) << "it came; who leaves is not awaited";
  EXPECT_EQ(members.Away(), (std::set<ClientId>{{"a"}, {"z"}})) << "but is lacking";
  members.ExpectNobody();
  EXPECT_TRUE(members.Missing().empty());
  EXPECT_EQ(members.Away(), (std::set<ClientId>{{"a"}}));
}

TEST(NamesTest, LongListsAreCutAndEmptyOnesHaveAWord) {
  EXPECT_EQ(Names(std::vector<ClientId>{}), "nobody");
  EXPECT_EQ(Names(std::vector<ClientId>{{"a"}, {"b"}}), "a, b");
  std::vector<ClientId> many;
  for (char c = 'a'; c < 'a' + 11; ++c) many.push_back({std::string(1, c)});
  EXPECT_EQ(Names(many), "a, b, c, d, e, f, g, h and 3 more");
  EXPECT_EQ(Names(std::set<ClientId>{{"y"}, {"x"}}), "x, y");
}

}  // namespace
}  // namespace weft
