// Packing drawn rows: each row can be read off the batch again, with its labels, packed or padded.

#include <algorithm>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/data/batch.h"

namespace weft {
namespace {

std::vector<TokenRow> DrawnRows(RandomStream& draw) {
  std::vector<TokenRow> rows;
  for (uint64_t count = 1 + draw.Below(7); count > 0; --count) {
    TokenRow row;
    for (uint64_t length = 1 + draw.Below(20); length > 0; --length) {
      row.ids.push_back(static_cast<int32_t>(draw.Below(1000)));
      row.labels.push_back(draw.Below(3) == 0 ? kNoLabel : row.ids.back());
    }
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<const TokenRow*> Pointers(const std::vector<TokenRow>& rows) {
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  return pointers;
}

// What a batch says about one of its rows.
TokenRow RowOf(const PackedBatch& batch, size_t r, size_t length) {
  const auto begin = batch.row_starts[r];
  TokenRow row;
  const int64_t* const ids = batch.ids_N.const_data_ptr<int64_t>();
  for (size_t t = 0; t < length; ++t) {
    row.ids.push_back(static_cast<int32_t>(ids[begin + static_cast<int64_t>(t)]));
  }
  row.labels.assign(length, kNoLabel);
  for (int64_t l = 0; l < batch.labels_L.size(0); ++l) {
    const int64_t place = batch.label_at_L.const_data_ptr<int64_t>()[l];
    if (place < begin || place >= batch.row_starts[r + 1]) continue;
    // Token t is predicted at t − 1.
    row.labels[static_cast<size_t>(place - begin) + 1] =
        static_cast<int32_t>(batch.labels_L.const_data_ptr<int64_t>()[l]);
  }
  return row;
}

TEST(PackingTest, EveryRowComesOutOfTheBatchAsItWentIn) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"packing"});
    const std::vector<TokenRow> rows = DrawnRows(draw);
    size_t longest = 0, tokens = 0;
    int64_t labels = 0;
    for (const TokenRow& row : rows) {
      longest = std::max(longest, row.ids.size());
      tokens += row.ids.size();
      labels += row.num_labels();
    }
    for (const bool pad : {false, true}) {
      SCOPED_TRACE(Str("seed ", seed, pad ? " padded" : " packed"));
      const PackedBatch batch = Pack(Pointers(rows), {.pad = pad, .pad_id = 7});
      EXPECT_EQ(batch.num_rows(), static_cast<int64_t>(rows.size()));
      EXPECT_EQ(batch.ids_N.size(0), static_cast<int64_t>(pad ? longest * rows.size() : tokens));
      EXPECT_EQ(batch.labels_L.size(0), labels);
      EXPECT_EQ(batch.label_at_L.size(0), labels);
      for (size_t r = 0; r < rows.size(); ++r) {
        const TokenRow out = RowOf(batch, r, rows[r].ids.size());
        EXPECT_EQ(out.ids, rows[r].ids);
        TokenRow wanted = rows[r];
        wanted.labels[0] = kNoLabel;  // nothing before it predicts it
        EXPECT_EQ(out.labels, wanted.labels);
        const at::Tensor positions =
            batch.positions_N.slice(0, batch.row_starts[r], batch.row_starts[r + 1]);
        EXPECT_TRUE(at::equal(positions, at::arange(positions.size(0), at::kLong)));
      }
    }
  }
}

TEST(PackingTest, PaddingOnlyEverFollowsARow) {
  RandomStream draw(5);
  const std::vector<TokenRow> rows = DrawnRows(draw);
  const PackedBatch batch = Pack(Pointers(rows), {.pad = true, .pad_id = 7});
  for (size_t r = 0; r < rows.size(); ++r) {
    const at::Tensor tail = batch.ids_N.slice(
        0, batch.row_starts[r] + static_cast<int64_t>(rows[r].ids.size()), batch.row_starts[r + 1]);
    EXPECT_TRUE((tail == 7).all().item<bool>());
  }
}

TEST(PackingTest, ARowWhoseLabelsAreOfAnotherLengthIsABug) {
  const TokenRow row{{1, 2, 3}, {1, 2}};
  const std::vector<const TokenRow*> rows = {&row};
  EXPECT_THROW((void)Pack(rows, {}), CheckFailure);
  const TokenRow empty;
  const std::vector<const TokenRow*> none = {&empty};
  EXPECT_THROW((void)Pack(none, {}), CheckFailure);
}

TEST(PackingTest, MicroBatchesOfAnySizeHoldEveryRowOnceInOrder) {
  const std::vector<TokenRow> rows(11, TokenRow{{1, 2}, {1, 2}});
  const std::vector<const TokenRow*> pointers = Pointers(rows);
  for (int64_t size = 1; size <= 13; ++size) {
    std::vector<const TokenRow*> seen;
    for (const auto piece : MicroBatches(pointers, size)) {
      EXPECT_LE(piece.size(), static_cast<size_t>(size));
      EXPECT_FALSE(piece.empty());
      seen.insert(seen.end(), piece.begin(), piece.end());
    }
    EXPECT_EQ(seen, pointers) << size;
  }
  EXPECT_TRUE(MicroBatches({}, 4).empty());
}

}  // namespace
}  // namespace weft
