#include "common/laplace/posterior.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/laplace/random_problem.h"

namespace weft {
namespace {

using testing::DenseCurvature;
using testing::RandomStatistics;
using testing::RandomTensor;
using testing::RandomTheta;
using testing::RelativeError;
using testing::Sides;

const std::vector<Sides> kSides = {{3, 4, 0, 0}, {2, 7, 0, 3}, {6, 3, 2, 0}};

// Σ_kl g_k a_l (u_k ⊗ v_l)(u_k ⊗ v_l)ᵀ.
at::Tensor FromEigen(const KroneckerBlock& block) {
  const at::Tensor vectors = at::kron(block.output.vectors_DK, block.input.vectors_DK);
  return at::matmul(vectors * block.Curvature().flatten(), vectors.t());
}

TEST(LaplacePosteriorTest, EigenvaluesStandForTheKroneckerProduct) {
  const LaplaceStatistics statistics = RandomStatistics(kSides, 8, 2);
  for (const Normalization normalization :
       {Normalization::kTokenRows, Normalization::kLaplaceLora, Normalization::kBayesianLora}) {
    const Result<LaplacePosterior> posterior =
        MakePosterior(statistics, RandomTheta(kSides), normalization);
    ASSERT_TRUE(posterior.ok()) << posterior.status();
    EXPECT_EQ(posterior->log_likelihood, statistics.log_likelihood);
    for (size_t m = 0; m < kSides.size(); ++m) {
      const KroneckerBlock& block = posterior->blocks[m];
      EXPECT_EQ(block.name, statistics.matrices[m].name);
      EXPECT_EQ(block.out(), kSides[m].out);
      EXPECT_EQ(block.in(), kSides[m].in);
      EXPECT_LE(RelativeError(FromEigen(block), DenseCurvature(statistics, m, normalization)),
                1e-13)
          << NormalizationName(normalization) << " " << m;
      EXPECT_NEAR(block.theta_square, RandomTheta(kSides)[m].square().sum().item<double>(), 1e-13);
    }
  }
}

TEST(LaplacePosteriorTest, OfOneRowAnExampleTheFirstTwoNormalisationsAgree) {
  const LaplaceStatistics one = RandomStatistics(kSides, 8, 1);
  EXPECT_LE(RelativeError(DenseCurvature(one, 0, Normalization::kLaplaceLora),
                          DenseCurvature(one, 0, Normalization::kTokenRows)),
            1e-15);
  // Of three, the official one counts every token three times.
  const LaplaceStatistics three = RandomStatistics(kSides, 8, 3);
  EXPECT_LE(RelativeError(DenseCurvature(three, 0, Normalization::kLaplaceLora),
                          3 * DenseCurvature(three, 0, Normalization::kTokenRows)),
            1e-15);
}

TEST(LaplacePosteriorTest, OfOneExampleTokenRowsGiveItsExactCurvature) {
  const LaplaceStatistics one = RandomStatistics({{3, 4}}, 1, 1);
  const at::Tensor gradient =
      at::outer(RandomTensor("g0", {1, 3}).flatten(), RandomTensor("a0", {1, 4}).flatten())
          .flatten();
  EXPECT_LE(RelativeError(DenseCurvature(one, 0, Normalization::kTokenRows),
                          at::outer(gradient, gradient)),
            1e-14);
}

TEST(LaplacePosteriorTest, TheOfficialModeAveragesWholeFactorsOverBatchesAndLeavesRoots) {
  LaplaceStatistics statistics = RandomStatistics(kSides, 8, 1);
  statistics.batches = 4;
  const MatrixStatistics& matrix = statistics.matrices[1];
  const ScaledFactors scaled = Scale(statistics, matrix, Normalization::kBayesianLora);
  EXPECT_TRUE(at::equal(scaled.input.values(), matrix.input.values()));
  const at::Tensor mean = matrix.output.Matrix() / 4;
  const at::Tensor raised = scaled.output.Matrix() - mean;
  EXPECT_LE(RelativeError(raised.diagonal(), mean.diagonal() * 1e-8 + 1e-8), 1e-6);
  EXPECT_LE((raised - at::diag(raised.diagonal())).abs().max().item<double>(), 1e-15);
}

TEST(LaplacePosteriorTest, MatricesOtherThanThoseMeasuredAreRefused) {
  const LaplaceStatistics statistics = RandomStatistics(kSides, 8);
  const auto refusal = [&](const std::vector<at::Tensor>& theta) {
    const Result<LaplacePosterior> made =
        MakePosterior(statistics, theta, Normalization::kTokenRows);
    EXPECT_EQ(made.status().code(), Code::kInvalidArgument) << made.status();
    return made.status().message();
  };
  std::vector<at::Tensor> theta = RandomTheta(kSides);
  theta[1] = theta[1].t();
  EXPECT_NE(refusal(theta).find("matrix m1 is [7, 2]"), std::string::npos) << refusal(theta);
  theta = RandomTheta(kSides);
  theta[2][0][0] = std::nan("");
  EXPECT_NE(refusal(theta).find("m2 is not finite"), std::string::npos) << refusal(theta);
  theta.pop_back();
  EXPECT_NE(refusal(theta).find("2 matrices of the adapter"), std::string::npos);
}

TEST(LaplacePosteriorTest, BatchesAreNeededOnlyWhereTheyDivide) {
  LaplaceStatistics statistics = RandomStatistics(kSides, 8);
  statistics.batches = 0;
  EXPECT_TRUE(MakePosterior(statistics, RandomTheta(kSides), Normalization::kTokenRows).ok());
  EXPECT_FALSE(MakePosterior(statistics, RandomTheta(kSides), Normalization::kBayesianLora).ok());
}

}  // namespace
}  // namespace weft
