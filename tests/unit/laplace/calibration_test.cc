#include "common/laplace/calibration.h"

#include <cmath>

#include <gtest/gtest.h>

namespace weft {
namespace {

at::Tensor Rows(const std::vector<double>& values, int64_t classes) {
  return at::tensor(values, at::kDouble).view({-1, classes});
}
at::Tensor Labels(const std::vector<int64_t>& labels) { return at::tensor(labels, at::kLong); }

TEST(CalibrationTest, FourRowsByHand) {
  const at::Tensor p = Rows({0.9, 0.1, 0.8, 0.2, 0.3, 0.7, 0.45, 0.55}, 2);
  const Result<Calibration> got = MeasureCalibration(p, Labels({0, 1, 1, 1}), 10);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ(got->examples, 4u);
  EXPECT_EQ(got->accuracy, 0.75);
  EXPECT_NEAR(got->nll, -(std::log(0.9) + std::log(0.2) + std::log(0.7) + std::log(0.55)) / 4,
              1e-15);
  EXPECT_NEAR(got->brier, (0.02 + 1.28 + 0.18 + 0.405) / 4, 1e-15);
  // Confidences 0.9, 0.8, 0.7, 0.55 lie in bins of their own: |1 − 0.9| + |0 − 0.8| + …
  EXPECT_NEAR(got->ece, (0.1 + 0.8 + 0.3 + 0.45) / 4, 1e-15);
  // In one bin they cancel: |3 − 2.95| / 4.
  EXPECT_NEAR(MeasureCalibration(p, Labels({0, 1, 1, 1}), 1)->ece, 0.05 / 4, 1e-15);
}

TEST(CalibrationTest, BinsAreOpenBelowAndClosedAbove) {
  // 0.5 belongs to (0, 0.5], 0.75 to (0.5, 1]: were they together, 1 + 0 would meet 0.5 + 0.75.
  const at::Tensor p = Rows({0.5, 0.5, 0.75, 0.25}, 2);
  EXPECT_NEAR(MeasureCalibration(p, Labels({0, 1}), 2)->ece, (0.5 + 0.75) / 2, 1e-15);
  EXPECT_NEAR(MeasureCalibration(p, Labels({0, 1}), 1)->ece, 0.25 / 2, 1e-15);
}

TEST(CalibrationTest, CertainAndRightIsPerfectCertainAndWrongIsFinite) {
  const at::Tensor p = Rows({1, 0, 0, 0, 1, 0}, 3);
  const Calibration right = *MeasureCalibration(p, Labels({0, 1}));
  EXPECT_EQ(right.bins, kCalibrationBins);
  EXPECT_EQ(right.accuracy, 1);
  EXPECT_EQ(right.nll, 0);
  EXPECT_EQ(right.brier, 0);
  EXPECT_EQ(right.ece, 0);
  const Calibration wrong = *MeasureCalibration(p, Labels({1, 2}));
  EXPECT_EQ(wrong.accuracy, 0);
  EXPECT_TRUE(std::isfinite(wrong.nll));
  EXPECT_EQ(wrong.brier, 2);
  EXPECT_EQ(wrong.ece, 1);
}

TEST(CalibrationTest, WhatAreNoProbabilitiesOrLabelsIsRefused) {
  const at::Tensor p = Rows({0.9, 0.1, 0.8, 0.2}, 2);
  EXPECT_TRUE(MeasureCalibration(p.to(at::kFloat), Labels({0, 1})).ok());
  const std::pair<at::Tensor, at::Tensor> bad[] = {{p * 2, Labels({0, 1})},
                                                   {Rows({1.5, -0.5}, 2), Labels({0})},
                                                   {p, Labels({0, 2})},
                                                   {p, Labels({-1, 1})},
                                                   {p, Labels({0})},
                                                   {p[0], Labels({0})},
                                                   {p * NAN, Labels({0, 1})},
                                                   {p, Labels({0, 1}).to(at::kDouble)},
                                                   {p.narrow(0, 0, 0), Labels({})}};
  for (const auto& [probabilities, labels] : bad) {
    EXPECT_EQ(MeasureCalibration(probabilities, labels).status().code(), Code::kInvalidArgument);
  }
  EXPECT_FALSE(MeasureCalibration(p, Labels({0, 1}), 0).ok());
}

}  // namespace
}  // namespace weft
