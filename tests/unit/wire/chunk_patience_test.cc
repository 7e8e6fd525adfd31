#include "common/wire/chunk_patience.h"

#include <vector>

#include <gtest/gtest.h>

namespace weft {
namespace {

// Asked at second 0 for what never comes, looked at every second: when it is asked for again.
TEST(ChunkPatienceTest, AskingInVainDoublesTheWait) {
  ChunkPatience patience;
  patience.Begin(Seconds(0));
  std::vector<int> asked;
  for (int second = 1; second <= 200; ++second) {
    if (patience.Over(Seconds(second))) asked.push_back(second);
  }
  EXPECT_EQ(asked, (std::vector<int>{11, 32, 63, 94, 125, 156, 187}));
}

TEST(ChunkPatienceTest, ChunksThatAreSlowAreNotAskedForTwice) {
  ChunkPatience patience;
  patience.Begin(Seconds(0));
  int asked = 0;
  for (int second = 1; second <= 100; ++second) {
    if (second % 15 == 0) patience.Came(Seconds(second));
    if (patience.Over(Seconds(second))) ++asked;
  }
  EXPECT_EQ(asked, 1) << "only before it is known that a chunk takes fifteen seconds";
}

TEST(ChunkPatienceTest, WhatIsKnownOfALinkHoldsForTheNextTransferAndFades) {
  ChunkPatience patience;
  patience.Begin(Seconds(0));
  patience.Came(Seconds(12));
  patience.Came(Seconds(13));  // the last one, a small one
  patience.Begin(Seconds(20));
  EXPECT_FALSE(patience.Over(Seconds(37))) << "a chunk takes about 9 s";
  for (int i = 0; i < 20; ++i) patience.Came(Seconds(40));
  patience.Begin(Seconds(40));
  EXPECT_TRUE(patience.Over(Seconds(50.1))) << "it has become quick";
}

TEST(ChunkPatienceTest, WaitingInVainIsForgottenWithTheLink) {
  ChunkPatience patience;
  patience.Begin(Seconds(0));
  EXPECT_TRUE(patience.Over(Seconds(11)));
  EXPECT_TRUE(patience.Over(Seconds(32)));
  patience.Begin(Seconds(40));
  EXPECT_FALSE(patience.Over(Seconds(50)));
  EXPECT_TRUE(patience.Over(Seconds(50.1)));
}

TEST(ChunkPatienceTest, ADamagedChunkIsAskedForSoon) {
  ChunkPatience patience;
  patience.Begin(Seconds(0));
  patience.Damaged(Seconds(1));
  EXPECT_FALSE(patience.Over(Seconds(4)));
  EXPECT_TRUE(patience.Over(Seconds(4.1)));
}

}  // namespace
}  // namespace weft
