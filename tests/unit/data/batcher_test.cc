#include "common/data/batcher.h"

#include <algorithm>
#include <numeric>

#include <gtest/gtest.h>

namespace weft {
namespace {

Batcher Make(Batcher::Options options) {
  Result<Batcher> batcher = Batcher::Make(std::move(options));
  EXPECT_TRUE(batcher.ok()) << batcher.status();
  return std::move(batcher).value();
}

std::vector<size_t> Draw(Batcher& batcher, int batches) {
  std::vector<size_t> rows;
  for (int i = 0; i < batches; ++i) {
    for (const size_t row : batcher.Next()) rows.push_back(row);
  }
  return rows;
}

TEST(BatcherTest, FileOrderTakesRowsAsTheyComeAndWraps) {
  Batcher batcher = Make({.num_rows = 3, .batch_size = 2, .row_order = "file"});
  EXPECT_EQ(Draw(batcher, 3), (std::vector<size_t>{0, 1, 2, 0, 1, 2}));
}

TEST(BatcherTest, EachPassHoldsEveryRowOnceInAnOrderOfItsOwn) {
  Batcher batcher = Make({.num_rows = 20, .batch_size = 5});
  std::vector<size_t> first = Draw(batcher, 4);
  std::vector<size_t> second = Draw(batcher, 4);
  EXPECT_NE(first, second);
  std::vector<size_t> all(20);
  std::iota(all.begin(), all.end(), size_t{0});
  std::sort(first.begin(), first.end());
  std::sort(second.begin(), second.end());
  EXPECT_EQ(first, all);
  EXPECT_EQ(second, all);
}

TEST(BatcherTest, OrderDependsOnSeedClientAndRoundAlone) {
  const auto order = [](uint64_t seed, std::string client, uint64_t round) {
    Batcher batcher = Make({.num_rows = 30,
                            .batch_size = 30,
                            .seed = seed,
                            .client = std::move(client),
                            .round = round});
    return batcher.Next();
  };
  const auto base = order(1, "a", 1);
  EXPECT_EQ(base, order(1, "a", 1));
  EXPECT_NE(base, order(2, "a", 1));
  EXPECT_NE(base, order(1, "b", 1));
  EXPECT_NE(base, order(1, "a", 2));
}

TEST(BatcherTest, RestoredPositionContinuesTheSameStream) {
  for (const char* row_order : {"shuffle", "file"}) {
    const Batcher::Options options = {.num_rows = 7, .batch_size = 3, .row_order = row_order};
    Batcher whole = Make(options);
    (void)Draw(whole, 4);
    const Batcher::Position position = whole.Save();
    const std::vector<size_t> wanted = Draw(whole, 5);
    Batcher resumed = Make(options);
    ASSERT_TRUE(resumed.Restore(position).ok());
    EXPECT_EQ(Draw(resumed, 5), wanted) << row_order;
  }
}

TEST(BatcherTest, ThePositionAtAPassesEndIsOneToGoOnFrom) {
  Batcher whole = Make({.num_rows = 4, .batch_size = 2, .row_order = "file"});
  (void)Draw(whole, 2);
  ASSERT_EQ(whole.Save(), (Batcher::Position{0, 4}));
  Batcher resumed = Make({.num_rows = 4, .batch_size = 2, .row_order = "file"});
  ASSERT_TRUE(resumed.Restore({0, 4}).ok());
  EXPECT_EQ(resumed.Next(), (std::vector<size_t>{0, 1}));
}

TEST(BatcherTest, PositionBeyondTheRowsIsRefused) {
  Batcher batcher = Make({.num_rows = 7, .batch_size = 3});
  EXPECT_EQ(batcher.Restore({.pass = 0, .row = 8}).code(), Code::kInvalidArgument);
}

TEST(BatcherTest, PassesEndWithASmallerBatch) {
  Batcher batcher = Make({.num_rows = 5, .batch_size = 2, .row_order = "file"});
  EXPECT_EQ(batcher.batches_per_pass(), 3);
  EXPECT_EQ(batcher.NextOfPass().size(), 2u);
  EXPECT_EQ(batcher.NextOfPass().size(), 2u);
  EXPECT_EQ(batcher.NextOfPass(), (std::vector<size_t>{4}));
  EXPECT_EQ(batcher.NextOfPass(), (std::vector<size_t>{0, 1}));
}

TEST(BatcherTest, BatchLargerThanTheDataRepeatsRows) {
  Batcher batcher = Make({.num_rows = 2, .batch_size = 5, .row_order = "file"});
  EXPECT_EQ(batcher.Next(), (std::vector<size_t>{0, 1, 0, 1, 0}));
}

TEST(BatcherTest, ImpossibleOptionsAreRefused) {
  EXPECT_FALSE(Batcher::Make({.num_rows = 0}).ok());
  EXPECT_FALSE(Batcher::Make({.num_rows = 3, .batch_size = 0}).ok());
  EXPECT_FALSE(Batcher::Make({.num_rows = 3, .row_order = "random"}).ok());
}

}  // namespace
}  // namespace weft
