#include "common/laplace/predictive.h"

#include <cmath>
#include <numbers>

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

const std::vector<Sides> kSides = {{3, 4, 0, 0}, {2, 7, 0, 3}, {6, 3, 2, 0}, {5, 6, 2, 3}};
const std::vector<double> kPrecisions = {0.3, 1.7, 40, 2};
constexpr int64_t kExamples = 4;
constexpr int64_t kClasses = 3;

std::vector<at::Tensor> Jacobians() {
  std::vector<at::Tensor> jacobians;
  for (size_t m = 0; m < kSides.size(); ++m) {
    jacobians.push_back(
        RandomTensor(Str("J", m), {kExamples, kClasses, kSides[m].out, kSides[m].in}));
  }
  return jacobians;
}

at::Tensor RandomCovariance(int64_t classes) {
  const at::Tensor root = RandomTensor("covariance", {kExamples, classes, classes});
  return at::bmm(root, root.transpose(1, 2)) + 0.1 * at::eye(classes, at::kDouble);
}

// E σ(z) of z ~ N(mean, variance), by the trapezoidal rule.
double MeanSigmoid(double mean, double variance) {
  const double deviation = std::sqrt(variance);
  double sum = 0;
  double mass = 0;
  for (double t = -9; t <= 9; t += 1e-3) {
    const double weight = std::exp(-t * t / 2);
    sum += weight / (1 + std::exp(-(mean + deviation * t)));
    mass += weight;
  }
  return sum / mass;
}

TEST(LaplacePredictiveTest, CovariancesAreThoseOfTheDenseInverse) {
  const LaplaceStatistics statistics = RandomStatistics(kSides, 8, 2);
  const LaplacePosterior posterior =
      *MakePosterior(statistics, RandomTheta(kSides), Normalization::kTokenRows);
  const std::vector<at::Tensor> jacobians = Jacobians();
  at::Tensor wanted = at::zeros({kExamples, kClasses, kClasses}, at::kDouble);
  for (size_t m = 0; m < kSides.size(); ++m) {
    const at::Tensor H = DenseCurvature(statistics, m, Normalization::kTokenRows);
    const at::Tensor covariance =
        at::linalg_inv(H + kPrecisions[m] * at::eye(H.size(0), at::kDouble));
    const at::Tensor J = jacobians[m].flatten(2);
    wanted += at::matmul(at::matmul(J, covariance), J.transpose(1, 2));
  }
  const Result<at::Tensor> got = LogitCovariance(posterior, kPrecisions, jacobians);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_LE(RelativeError(*got, wanted), 1e-12);
  const at::Tensor one = *LogitCovariance(posterior, std::vector<double>{2}, jacobians);
  const at::Tensor each = *LogitCovariance(posterior, std::vector<double>{2, 2, 2, 2}, jacobians);
  EXPECT_TRUE(at::equal(one, each));
}

TEST(LaplacePredictiveTest, JacobiansOfOtherShapesAreRefused) {
  const LaplacePosterior posterior =
      *MakePosterior(RandomStatistics(kSides, 8), RandomTheta(kSides), Normalization::kTokenRows);
  std::vector<at::Tensor> jacobians = Jacobians();
  jacobians[2] = jacobians[2].transpose(2, 3);
  const Result<at::Tensor> transposed = LogitCovariance(posterior, kPrecisions, jacobians);
  EXPECT_NE(transposed.status().message().find("Jacobian of m2"), std::string::npos);
  jacobians = Jacobians();
  jacobians[3] = jacobians[3].narrow(0, 0, 2);
  EXPECT_FALSE(LogitCovariance(posterior, kPrecisions, jacobians).ok());
  jacobians.pop_back();
  EXPECT_FALSE(LogitCovariance(posterior, kPrecisions, jacobians).ok());
  EXPECT_FALSE(LogitCovariance(posterior, std::vector<double>{1, 2}, Jacobians()).ok());
}

TEST(LaplacePredictiveTest, GivenDrawsAverageTheSoftmaxNotTheLogits) {
  const at::Tensor mean = RandomTensor("mean", {kExamples, kClasses});
  const at::Tensor covariance = RandomCovariance(kClasses);
  const at::Tensor draws = RandomTensor("draws", {5, kExamples, kClasses});
  const at::Tensor got = *MonteCarloProbabilities(mean, covariance, draws, 1e-3);
  for (int64_t n = 0; n < kExamples; ++n) {
    const at::Tensor root =
        at::linalg_cholesky(covariance[n] + 1e-3 * at::eye(kClasses, at::kDouble));
    at::Tensor sum = at::zeros({kClasses}, at::kDouble);
    for (int64_t s = 0; s < 5; ++s) {
      sum += at::softmax(mean[n] + at::mv(root, draws[s][n]), 0);
    }
    EXPECT_LE(RelativeError(got[n], sum / 5), 1e-14);
  }
  EXPECT_FALSE(MonteCarloProbabilities(mean, covariance, draws[0], 0).ok());
}

TEST(LaplacePredictiveTest, OfTwoClassesManyDrawsApproachTheIntegral) {
  const at::Tensor mean = RandomTensor("mean", {kExamples, 2});
  const at::Tensor covariance = RandomCovariance(2);
  const at::Tensor got =
      *MonteCarloProbabilities(mean, covariance, {.samples = 100000, .seed = 3, .jitter = 0});
  for (int64_t n = 0; n < kExamples; ++n) {
    const at::Tensor difference = at::tensor({1.0, -1.0}, at::kDouble);
    const double center = difference.dot(mean[n]).item<double>();
    const double spread = difference.dot(at::mv(covariance[n], difference)).item<double>();
    // Four standard errors of 100,000 draws of something between 0 and 1.
    EXPECT_NEAR(got[n][0].item<double>(), MeanSigmoid(center, spread), 0.0064) << n;
  }
}

TEST(LaplacePredictiveTest, DrawsDependOnSeedAndNumberOfTheExampleAlone) {
  const at::Tensor mean = RandomTensor("mean", {kExamples, kClasses});
  const at::Tensor covariance = RandomCovariance(kClasses);
  const at::Tensor all = *MonteCarloProbabilities(mean, covariance, {.samples = 50, .seed = 3});
  const at::Tensor tail = *MonteCarloProbabilities(mean.narrow(0, 2, 2), covariance.narrow(0, 2, 2),
                                                   {.samples = 50, .seed = 3, .first_example = 2});
  EXPECT_TRUE(at::equal(all.narrow(0, 2, 2), tail));
  const at::Tensor other = *MonteCarloProbabilities(mean, covariance, {.samples = 50, .seed = 4});
  EXPECT_FALSE(at::equal(all, other));
}

TEST(LaplacePredictiveTest, CovariancesThatAreNoneAreNamed) {
  const at::Tensor mean = RandomTensor("mean", {kExamples, kClasses});
  at::Tensor covariance = RandomCovariance(kClasses);
  covariance[2].neg_();
  const Result<at::Tensor> got = MonteCarloProbabilities(mean, covariance, {.samples = 5});
  EXPECT_EQ(got.status().code(), Code::kInternal);
  EXPECT_NE(got.status().message().find("row 2"), std::string::npos) << got.status();
  EXPECT_FALSE(MonteCarloProbabilities(mean, covariance[0], {.samples = 5}).ok());
  EXPECT_FALSE(MonteCarloProbabilities(mean, covariance, {.samples = 0}).ok());
}

TEST(LaplacePredictiveTest, ProbitDividesEachLogitByItsOwnSpread) {
  const at::Tensor mean = at::tensor({1.0, -2.0}, at::kDouble).view({1, 2});
  const at::Tensor covariance = at::tensor({4.0, 1.0, 1.0, 9.0}, at::kDouble).view({1, 2, 2});
  const double x = 1 / std::sqrt(1 + std::numbers::pi / 8 * 4);
  const double y = -2 / std::sqrt(1 + std::numbers::pi / 8 * 9);
  const double wanted = std::exp(x) / (std::exp(x) + std::exp(y));
  EXPECT_NEAR(ProbitProbabilities(mean, covariance)[0][0].item<double>(), wanted, 1e-14);
  // An uncertain model says less, a certain one what its logits say.
  EXPECT_NEAR(ProbitProbabilities(mean, covariance * 1e9)[0][0].item<double>(), 0.5, 1e-4);
  EXPECT_LE(RelativeError(ProbitProbabilities(mean, covariance * 0), at::softmax(mean, -1)), 1e-15);
}

TEST(LaplacePredictiveTest, TheBridgeLeadsBackToTheDirichletItCameFrom) {
  // Hobbhahn et al. 2022: a Dirichlet α in the softmax basis is about normal with
  // μ_c = log α_c − mean log α, Σ_cd = δ_cd/α_c − (1/α_c + 1/α_d − mean(1/α))/C.
  const at::Tensor alpha = RandomTensor("alpha", {kExamples, kClasses}).exp() * 3;
  const at::Tensor mean = alpha.log() - alpha.log().mean({1}, true);
  const at::Tensor inverse = alpha.reciprocal();
  const at::Tensor spread =
      (inverse.unsqueeze(2) + inverse.unsqueeze(1) - inverse.mean({1}, true).unsqueeze(2)) /
      static_cast<double>(kClasses);
  // Its covariance is singular along (1, …, 1); some variance there must change nothing.
  const at::Tensor covariance = at::diag_embed(inverse) - spread + 0.8;
  EXPECT_LE(RelativeError(BridgeDirichlet(mean, covariance), alpha), 1e-12);
  EXPECT_LE(RelativeError(BridgeDirichlet(mean + 5, covariance), alpha), 1e-12);
  EXPECT_LE(RelativeError(BridgeProbabilities(mean, covariance), alpha / alpha.sum(1, true)),
            1e-12);
}

}  // namespace
}  // namespace weft
