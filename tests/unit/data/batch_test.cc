#include "common/data/batch.h"

#include <gtest/gtest.h>

// Shape legend: N packed tokens, L labelled positions.

namespace weft {
namespace {

TokenRow MakeRow(std::vector<int32_t> ids, std::vector<int32_t> labels) {
  return {std::move(ids), std::move(labels)};
}

std::vector<int64_t> Values(const at::Tensor& tensor) {
  return {tensor.data_ptr<int64_t>(), tensor.data_ptr<int64_t>() + tensor.numel()};
}

TEST(BatchTest, RowsLieEndToEndWithShiftedLabels) {
  const TokenRow a = MakeRow({5, 6, 7}, {kNoLabel, 6, 7});
  const TokenRow b = MakeRow({8, 9}, {8, 9});
  const std::vector<const TokenRow*> rows = {&a, &b};
  const PackedBatch batch = Pack(rows, {});
  EXPECT_EQ(Values(batch.ids_N), (std::vector<int64_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(Values(batch.positions_N), (std::vector<int64_t>{0, 1, 2, 0, 1}));
  EXPECT_EQ(batch.row_starts, (std::vector<int64_t>{0, 3, 5}));
  // The label of b's first token has nothing before it to be predicted from.
  EXPECT_EQ(Values(batch.label_at_L), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(Values(batch.labels_L), (std::vector<int64_t>{6, 7, 9}));
}

TEST(BatchTest, PaddingFillsUpToTheLongestAndLabelsNothing) {
  const TokenRow a = MakeRow({5, 6, 7}, {kNoLabel, 6, 7});
  const TokenRow b = MakeRow({8, 9}, {kNoLabel, 9});
  const std::vector<const TokenRow*> rows = {&b, &a};
  const PackedBatch batch = Pack(rows, {.pad = true, .pad_id = 2});
  EXPECT_EQ(Values(batch.ids_N), (std::vector<int64_t>{8, 9, 2, 5, 6, 7}));
  EXPECT_EQ(batch.row_starts, (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(Values(batch.label_at_L), (std::vector<int64_t>{0, 3, 4}));
  EXPECT_EQ(Values(batch.labels_L), (std::vector<int64_t>{9, 6, 7}));
}

TEST(BatchTest, ARowsClassStandsAtItsFirstTokenAndNothingIsPadded) {
  const TokenRow a{.ids = {5, 6, 7}, .labels = {}, .row_class = 2};
  const TokenRow b{.ids = {8, 9}, .labels = {}, .row_class = 0, .types = {0, 1}};
  const std::vector<const TokenRow*> rows = {&a, &b};
  const PackedBatch batch = Pack(rows, {.pad = true});
  EXPECT_EQ(Values(batch.ids_N), (std::vector<int64_t>{5, 6, 7, 8, 9}));
  EXPECT_EQ(Values(batch.label_at_L), (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(Values(batch.labels_L), (std::vector<int64_t>{2, 0}));
  EXPECT_EQ(Values(batch.types_N), (std::vector<int64_t>{0, 0, 0, 0, 1}));
  const std::vector<const TokenRow*> single = {&a};
  EXPECT_FALSE(Pack(single, {}).types_N.defined());
  EXPECT_EQ(a.num_labels(), 1);
}

TEST(BatchTest, MicroBatchesCoverTheBatchInOrder) {
  const TokenRow row = MakeRow({1, 2}, {kNoLabel, 2});
  const std::vector<const TokenRow*> rows(7, &row);
  const auto pieces = MicroBatches(rows, 3);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].size(), 3u);
  EXPECT_EQ(pieces[2].size(), 1u);
  EXPECT_EQ(pieces[1].data(), rows.data() + 3);
}

TEST(BatchTest, LabelsAreCountedAsTheyAreUsed) {
  EXPECT_EQ(MakeRow({1, 2, 3}, {1, kNoLabel, 3}).num_labels(), 1);
  EXPECT_EQ(MakeRow({1}, {1}).num_labels(), 0);
}

}  // namespace
}  // namespace weft
