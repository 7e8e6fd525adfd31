#include "aggregator/strategies/weighted_sum.h"

#include <vector>

#include <gtest/gtest.h>

#include "tests/support/strategy_world.h"

namespace weft {
namespace {

struct WeightedMatrix {
  at::Tensor values;
  double scale;
};

at::Tensor Sum(const std::vector<WeightedMatrix>& matrices, int64_t rows, int64_t columns) {
  WeightedSum sum(rows, columns);
  for (const WeightedMatrix& matrix : matrices) sum.Add(matrix.values, matrix.scale);
  return sum.Take();
}

// The same by one loop over elements: the bits that any processor must give.
at::Tensor Slowly(const std::vector<WeightedMatrix>& matrices, int64_t rows, int64_t columns) {
  at::Tensor sum = at::zeros({rows, columns}, at::kDouble);
  for (const WeightedMatrix& matrix : matrices) {
    const at::Tensor wide = matrix.values.to(at::kDouble);
    for (int64_t i = 0; i < wide.size(0); ++i) {
      for (int64_t j = 0; j < wide.size(1); ++j) {
        const volatile double product = matrix.scale * wide[i][j].item<double>();
        sum[i][j] += product;
      }
    }
  }
  return sum;
}

WeightedMatrix Random(int64_t rows, int64_t columns, int label) {
  return {testing::RandomMatrix(rows, columns, std::to_string(label)).to(at::kFloat),
          0.1 + 0.37 * label};
}

TEST(WeightedSumTest, HasTheBitsOfALoopWhateverShapesCome) {
  // Blocks that end inside the matrix, full ones side by side in fours, shorter and narrower ones
  // between them, and a remainder.
  const int64_t rows = 37;
  const int64_t columns = 1000;
  std::vector<WeightedMatrix> matrices;
  for (int k = 0; k < 6; ++k) matrices.push_back(Random(rows, columns, k));
  matrices.push_back(Random(20, columns, 6));
  for (int k = 7; k < 12; ++k) matrices.push_back(Random(rows, columns, k));
  matrices.push_back(Random(rows, 5, 12));
  EXPECT_TRUE(at::equal(Sum(matrices, rows, columns), Slowly(matrices, rows, columns)));
}

TEST(WeightedSumTest, TakesViewsAndFloat64AsTheyAre) {
  const at::Tensor wide = testing::RandomMatrix(9, 4, "wide");
  const at::Tensor turned = testing::RandomMatrix(4, 9, "turned").to(at::kFloat).t();
  const std::vector<WeightedMatrix> matrices = {{wide, 0.25}, {turned, -3}};
  EXPECT_TRUE(at::equal(Sum(matrices, 9, 4), Slowly(matrices, 9, 4)));
}

TEST(WeightedSumTest, ManyAreAddedAFewAtATimeWithTheSameBits) {
  std::vector<WeightedMatrix> matrices;  // 40 MiB: held are 16
  for (int k = 0; k < 11; ++k) matrices.push_back(Random(1024, 1024, k));
  const at::Tensor slow = [&] {
    at::Tensor sum = at::zeros({1024, 1024}, at::kDouble);
    for (const WeightedMatrix& m : matrices) sum.add_(m.values.to(at::kDouble).mul_(m.scale));
    return sum;
  }();
  EXPECT_TRUE(at::equal(Sum(matrices, 1024, 1024), slow));
}

TEST(WeightedSumTest, GrowsWithWhatIsAdded) {
  const std::vector<WeightedMatrix> matrices = {Random(3, 5, 1), Random(7, 4, 2), Random(2, 9, 3)};
  EXPECT_TRUE(at::equal(Sum(matrices, 1, 1), Slowly(matrices, 7, 9)));
}

TEST(WeightedSumTest, OfNothingIsZero) {
  EXPECT_TRUE(at::equal(Sum({}, 2, 3), at::zeros({2, 3}, at::kDouble)));
}

}  // namespace
}  // namespace weft
