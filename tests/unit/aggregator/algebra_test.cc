#include "aggregator/algebra.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::MaxAbs;
using testing::RandomMatrix;
using testing::Relative;

LowRank Random(int64_t out, int64_t in, int64_t rank, std::string_view label) {
  return {RandomMatrix(rank, in, Str(label, "A")), RandomMatrix(out, rank, Str(label, "B"))};
}

at::Tensor Dense(const LowRank& factors) { return at::matmul(factors.B_OR, factors.A_RI); }

int64_t All(const at::Tensor& spectrum) { return spectrum.size(0); }

at::Tensor Rebuilt(const Recompressed& svd) { return at::matmul(svd.U_OQ * svd.S_Q, svd.V_IQ.t()); }

TEST(LowRankSumTest, BlocksAndTheDenseSumAgree) {
  LowRankSum sum(20, 30);
  at::Tensor wanted = at::zeros({20, 30}, at::kDouble);
  for (int k = 0; k < 8; ++k) {  // ranks 4·k pass min(20, 30) at the fifth block
    const LowRank block = Random(20, 30, 4, Str("block", k));
    sum.Add(block, 0.5 + k);
    wanted += Dense(block) * (0.5 + k);
    EXPECT_EQ(sum.dense(), k >= 4);
    EXPECT_LE(Relative(sum.Matrix(), wanted), 1e-14);
  }
  EXPECT_EQ(sum.rank(), 20);
}

TEST(LowRankSumTest, ACopyDoesNotChangeWithItsOriginal) {
  LowRankSum sum(6, 6);
  sum.Add(Random(6, 6, 6, "first"));
  const LowRankSum copy = sum;
  const at::Tensor before = copy.Matrix().clone();
  sum.Add(Random(6, 6, 2, "second"));
  EXPECT_EQ(MaxAbs(copy.Matrix() - before), 0);
}

TEST(LowRankSumTest, SumsOfSumsKeepTheirCoefficients) {
  LowRankSum stacked(20, 30);
  stacked.Add(Random(20, 30, 3, "x"));
  LowRankSum dense(20, 30);
  dense.Add(Random(20, 30, 25, "y"));
  LowRankSum sum = stacked;
  sum.Add(dense, -2);
  EXPECT_LE(Relative(sum.Matrix(), stacked.Matrix() - 2 * dense.Matrix()), 1e-14);
  LowRankSum other = dense;
  other.Add(stacked, -2);
  EXPECT_LE(Relative(other.Matrix(), dense.Matrix() - 2 * stacked.Matrix()), 1e-14);
}

TEST(AlgebraTest, RecompressionIsTheSvdOfTheDenseSum) {
  for (const auto& [out, in, rank] : std::vector<std::array<int64_t, 3>>{{40, 30, 6},
                                                                         {30, 40, 6},
                                                                         {40, 30, 29},
                                                                         {40, 30, 30},
                                                                         {30, 40, 64},
                                                                         {5, 50, 4},
                                                                         {50, 5, 9}}) {
    LowRankSum sum(out, in);
    sum.Add(Random(out, in, rank, Str(out, "x", in)));
    const at::Tensor wanted = std::get<1>(at::linalg_svd(sum.Matrix(), false));
    const Recompressed svd = Recompress(sum, All);
    const int64_t count = svd.spectrum.size(0);
    EXPECT_EQ(count, std::min({out, in, rank}));
    EXPECT_LE(MaxAbs(svd.spectrum - wanted.narrow(0, 0, count)) / wanted[0].item<double>(), 1e-13);
    EXPECT_LE(Relative(Rebuilt(svd), sum.Matrix()), 1e-13);
    EXPECT_LE(Relative(Dense(svd.BeforeCutting()), sum.Matrix()), 1e-13);
    const at::Tensor eye = at::eye(count, at::kDouble);
    EXPECT_LE(MaxAbs(at::matmul(svd.U_OQ.t(), svd.U_OQ) - eye), 1e-13);
    EXPECT_LE(MaxAbs(at::matmul(svd.V_IQ.t(), svd.V_IQ) - eye), 1e-13);
  }
}

TEST(AlgebraTest, CuttingIsTheBestApproximationAndItsErrorIsTheTail) {
  LowRankSum sum(40, 30);
  sum.Add(Random(40, 30, 12, "cut"));
  const Recompressed svd = Recompress(sum, [](const at::Tensor&) { return int64_t{5}; });
  EXPECT_EQ(svd.S_Q.size(0), 5);
  const double error = (Rebuilt(svd) - sum.Matrix()).square().sum().item<double>();
  EXPECT_NEAR(error / EnergyFrom(svd.spectrum, 5), 1, 1e-12);
}

TEST(AlgebraTest, TheLargestEntryOfEveryLeftVectorIsPositive) {
  LowRankSum sum(40, 30);
  sum.Add(Random(40, 30, 12, "signs"));
  LowRankSum negative(40, 30);
  negative.Add(sum, -1);
  for (const LowRankSum* each : {&sum, &negative}) {
    const Recompressed svd = Recompress(*each, All);
    const at::Tensor largest = svd.U_OQ.gather(0, svd.U_OQ.abs().argmax(0, true));
    EXPECT_TRUE((largest > 0).all().item<bool>());
  }
}

TEST(AlgebraTest, LargeDenseSumsGoThroughTheGramMatrixAndAgree) {
  // Over 1024 on both sides and of full stack rank; the numerical rank is 20.
  const int64_t n = 1100;
  const LowRank low = Random(n, n + 50, 20, "gram");
  LowRankSum sum(n, n + 50);
  sum.Add({at::matmul(RandomMatrix(n, 20, "mix"), low.A_RI),
           at::matmul(low.B_OR, RandomMatrix(20, n, "mix2"))});
  ASSERT_TRUE(sum.dense());
  const Recompressed svd = Recompress(sum, [](const at::Tensor&) { return int64_t{24}; });
  EXPECT_LE(Relative(Rebuilt(svd), sum.Matrix()), 1e-10);
  EXPECT_LE(MaxAbs(at::matmul(svd.U_OQ.t(), svd.U_OQ) - at::eye(24, at::kDouble)), 1e-10);
}

TEST(AlgebraTest, DistancesResolveWhatGramDifferencesLose) {
  LowRankSum sum(200, 150);
  sum.Add(Random(200, 150, 8, "near"));
  for (const double size : {1e-5, 1e-7, 1e-10}) {
    LowRankSum near = sum;
    LowRankSum change(200, 150);
    change.Add(Random(200, 150, 2, "change"));
    const double scale = size * FrobeniusNorm(sum) / FrobeniusNorm(change);
    near.Add(change, scale);
    EXPECT_NEAR(RelativeDistance(near, sum) / size, 1, 1e-4) << size;
  }
  EXPECT_EQ(RelativeDistance(sum, sum) < 1e-14, true);
  EXPECT_EQ(RelativeDistance(LowRankSum(4, 4), LowRankSum(4, 4)), 0);
}

TEST(AlgebraTest, ADistanceDoesNotDependOnTheGauge) {
  const LowRank factors = Random(60, 50, 4, "gauge");
  const at::Tensor G = RandomMatrix(4, 4, "G") + 3 * at::eye(4, at::kDouble);
  LowRankSum x(60, 50);
  x.Add(factors);
  LowRankSum y(60, 50);
  y.Add({at::linalg_solve(G, factors.A_RI), at::matmul(factors.B_OR, G)});
  EXPECT_LE(RelativeDistance(y, x), 1e-13);
}

TEST(AlgebraTest, InnerProductsAndNormsAreThoseOfTheMatrices) {
  const LowRank x = Random(40, 30, 5, "x");
  for (const int64_t rank : {3, 40}) {  // stacked, dense
    LowRankSum y(40, 30);
    y.Add(Random(40, 30, rank, "y"));
    const double wanted = (Dense(x) * y.Matrix()).sum().item<double>();
    EXPECT_NEAR(InnerProduct(x, y) / wanted, 1, 1e-11);
    EXPECT_NEAR(FrobeniusNorm(y) / y.Matrix().norm().item<double>(), 1, 1e-13);
  }
  EXPECT_NEAR(GramSquare(x) / Dense(x).square().sum().item<double>(), 1, 1e-13);
  EXPECT_EQ(InnerProduct(x, LowRankSum(40, 30)), 0);
}

TEST(AlgebraTest, EffectiveRankCountsEqualSingularValuesAndEnergyChoosesTheLeastRank) {
  const at::Tensor flat = at::full({7}, 3.0, at::kDouble);
  EXPECT_NEAR(EffectiveRank(flat), 7, 1e-12);
  EXPECT_NEAR(EffectiveRank(at::tensor({5.0, 0.0, 0.0}, at::kDouble)), 1, 1e-12);
  EXPECT_EQ(EffectiveRank(at::zeros({3}, at::kDouble)), 0);
  const at::Tensor falling = at::tensor({8.0, 4.0, 2.0, 1.0}, at::kDouble);  // Σσ² = 85
  EXPECT_EQ(RankOfEnergy(falling, 0.5), 1);
  EXPECT_EQ(RankOfEnergy(falling, 80.0 / 85), 2);
  EXPECT_EQ(RankOfEnergy(falling, 0.95), 3);
  EXPECT_EQ(RankOfEnergy(falling, 1.0), 4);
  EXPECT_EQ(RankOfEnergy(at::zeros({3}, at::kDouble), 0.9), 1);
  EXPECT_EQ(EnergyFrom(falling, 2), 5);
  EXPECT_EQ(EnergyFrom(falling, 4), 0);
}

TEST(AlgebraTest, CompletingRowsAreOrthonormalNewAndReproducible) {
  const at::Tensor A_RI = RandomMatrix(5, 12, "A");
  const at::Tensor rows = CompletingRows(A_RI, 7, "site");
  EXPECT_LE(MaxAbs(at::matmul(rows, rows.t()) - at::eye(7, at::kDouble)), 1e-13);
  EXPECT_LE(MaxAbs(at::matmul(rows, A_RI.t())), 1e-12);
  EXPECT_EQ(MaxAbs(rows - CompletingRows(A_RI, 7, "site")), 0);
  EXPECT_GT(MaxAbs(rows - CompletingRows(A_RI, 7, "other")), 0.01);
  EXPECT_EQ(CompletingRows(at::zeros({0, 4}, at::kDouble), 4, "site").size(0), 4);
}

TEST(AlgebraTest, AZeroSumHasDirectionsButNoSize) {
  LowRankSum sum(10, 8);
  sum.Add({RandomMatrix(3, 8, "A"), at::zeros({10, 3}, at::kDouble)});
  const Recompressed svd = Recompress(sum, All);
  EXPECT_EQ(svd.S_Q.size(0), 3);
  EXPECT_EQ(MaxAbs(svd.S_Q), 0);
  EXPECT_LE(MaxAbs(at::matmul(svd.V_IQ.t(), svd.V_IQ) - at::eye(3, at::kDouble)), 1e-13);
}

}  // namespace
}  // namespace weft
