#include "common/laplace/evidence.h"

#include <cmath>
#include <numeric>

#include <gtest/gtest.h>

#include "tests/unit/laplace/random_problem.h"

namespace weft {
namespace {

using testing::DenseCurvature;
using testing::RandomStatistics;
using testing::RandomTheta;
using testing::Sides;

const std::vector<Sides> kSides = {{3, 4, 0, 0}, {2, 7, 0, 3}, {6, 3, 2, 0}};

class LaplaceEvidenceTest : public ::testing::Test {
 protected:
  double At(const std::vector<double>& precisions) const {
    return LogEvidence(posterior_, precisions)->log_marginal;
  }
  static std::vector<double> Exp(const std::vector<double>& logs) {
    std::vector<double> values;
    for (const double log : logs) values.push_back(std::exp(log));
    return values;
  }

  LaplaceStatistics statistics_ = RandomStatistics(kSides, 8, 2);
  std::vector<at::Tensor> theta_ = RandomTheta(kSides);
  LaplacePosterior posterior_ = *MakePosterior(statistics_, theta_, Normalization::kTokenRows);
};

TEST_F(LaplaceEvidenceTest, DeterminantsAreThoseOfTheDenseMatrix) {
  const std::vector<double> precisions = {0.3, 1.7, 40};
  const Result<Evidence> evidence = LogEvidence(posterior_, precisions);
  ASSERT_TRUE(evidence.ok()) << evidence.status();
  double ratio = 0;
  double scatter = 0;
  for (size_t m = 0; m < kSides.size(); ++m) {
    const at::Tensor H = DenseCurvature(statistics_, m, Normalization::kTokenRows);
    const at::Tensor prior = precisions[m] * at::eye(H.size(0), at::kDouble);
    ratio += (at::logdet(H + prior) - at::logdet(prior)).item<double>();
    const at::Tensor theta = theta_[m].flatten();
    scatter += theta.dot(at::matmul(prior, theta)).item<double>();
  }
  EXPECT_NEAR(evidence->log_det_ratio, ratio, 1e-10 * ratio);
  EXPECT_NEAR(evidence->scatter, scatter, 1e-12 * scatter);
  EXPECT_NEAR(evidence->log_marginal, statistics_.log_likelihood - (ratio + scatter) / 2, 1e-9);
}

TEST_F(LaplaceEvidenceTest, OfRootsItIsTheRatioFormOfTheSmallMatrix) {
  // log det(I + s² BᵀB ⊗ LᵀL), B the root of the large side, L of the small one.
  const double variance = 0.7;
  const ScaledFactors scaled =
      Scale(statistics_, statistics_.matrices[1], Normalization::kTokenRows);
  const at::Tensor B = scaled.input.values();
  const at::Tensor L = at::linalg_cholesky(scaled.output.Matrix());
  const at::Tensor small = at::kron(at::matmul(B.t(), B), at::matmul(L.t(), L));
  const double wanted =
      at::logdet(at::eye(small.size(0), at::kDouble) + variance * small).item<double>();
  const LaplacePosterior alone{"", 0, {posterior_.blocks[1]}};
  const Evidence evidence = *LogEvidence(alone, std::vector<double>{1 / variance});
  EXPECT_NEAR(evidence.log_det_ratio, wanted, 1e-11);
}

TEST_F(LaplaceEvidenceTest, DerivativesAreThoseOfFiniteDifferences) {
  const std::vector<double> logs = {-1, 0.4, 2.5};
  const Evidence evidence = *LogEvidence(posterior_, Exp(logs));
  constexpr double kStep = 1e-4;  // truncation about 1e-8, rounding about 1e-14 / 1e-8 for the bend
  for (size_t m = 0; m < logs.size(); ++m) {
    std::vector<double> up = logs;
    std::vector<double> down = logs;
    up[m] += kStep;
    down[m] -= kStep;
    const double slope = (At(Exp(up)) - At(Exp(down))) / (2 * kStep);
    EXPECT_NEAR(evidence.gradient[m], slope, 1e-6) << m;
    const double bend = (LogEvidence(posterior_, Exp(up))->gradient[m] -
                         LogEvidence(posterior_, Exp(down))->gradient[m]) /
                        (2 * kStep);
    EXPECT_NEAR(evidence.bend[m], bend, 1e-6) << m;
  }
}

TEST_F(LaplaceEvidenceTest, FittedPrecisionsAreTheMaximum) {
  const PriorFit one = *FitPrior(posterior_, PriorSharing::kOne);
  const PriorFit each = *FitPrior(posterior_, PriorSharing::kPerMatrix);
  ASSERT_EQ(one.precisions.size(), kSides.size());
  EXPECT_EQ(one.precisions[0], one.precisions[2]);
  EXPECT_LT(one.steps, 20);
  const Evidence at_one = *LogEvidence(posterior_, one.precisions);
  EXPECT_NEAR(std::accumulate(at_one.gradient.begin(), at_one.gradient.end(), 0.0), 0, 1e-11);
  const Evidence at_each = *LogEvidence(posterior_, each.precisions);
  for (const double slope : at_each.gradient) EXPECT_NEAR(slope, 0, 1e-11);
  EXPECT_EQ(one.log_marginal, at_one.log_marginal);
  for (const double factor : {0.5, 0.99, 1.01, 2.0}) {
    EXPECT_LT(At({one.precisions[0] * factor}), one.log_marginal);
  }
  EXPECT_GT(each.log_marginal, one.log_marginal);
}

TEST_F(LaplaceEvidenceTest, EnoughStepsOfAdamEndAtTheSameMaximum) {
  for (const PriorSharing sharing : {PriorSharing::kOne, PriorSharing::kPerMatrix}) {
    const PriorFit newton = *FitPrior(posterior_, sharing);
    const PriorFit adam = *FitPriorByAdam(posterior_, sharing, {.steps = 2000});
    for (size_t m = 0; m < kSides.size(); ++m) {
      EXPECT_NEAR(adam.precisions[m] / newton.precisions[m], 1, 1e-3);
    }
    EXPECT_LE(adam.log_marginal, newton.log_marginal);
  }
}

TEST_F(LaplaceEvidenceTest, WhereThereIsNoMaximumABoundIsTheEnd) {
  std::vector<at::Tensor> zero = theta_;
  zero[1].zero_();
  LaplacePosterior posterior = *MakePosterior(statistics_, zero, Normalization::kTokenRows);
  posterior.blocks[2].output.values_K.zero_();
  const PriorFit fit = *FitPrior(posterior, PriorSharing::kPerMatrix);
  EXPECT_GT(fit.precisions[0], 1e-3);
  EXPECT_LT(fit.precisions[0], 1e3);
  EXPECT_EQ(fit.precisions[1], kLargestPrecision);
  EXPECT_EQ(fit.precisions[2], kLeastPrecision);
}

TEST_F(LaplaceEvidenceTest, OddPrecisionsAndSettingsAreRefused) {
  for (const std::vector<double>& precisions :
       {std::vector<double>{}, {1, 1}, {0}, {-1}, {std::nan("")}, {INFINITY}}) {
    EXPECT_EQ(LogEvidence(posterior_, precisions).status().code(), Code::kInvalidArgument);
  }
  EXPECT_FALSE(FitPrior({}, PriorSharing::kOne).ok());
  for (const AdamSettings& settings :
       {AdamSettings{.learning_rate = 0}, AdamSettings{.steps = -1}, AdamSettings{.start = 0}}) {
    EXPECT_FALSE(FitPriorByAdam(posterior_, PriorSharing::kOne, settings).ok());
  }
}

}  // namespace
}  // namespace weft
