// Against numbers worked out from the definitions, which scikit-learn shares (zero where a ratio
// has no denominator).

#include "common/evaluate/metrics.h"

#include <cmath>

#include <gtest/gtest.h>

namespace weft {
namespace {

using Classes = std::vector<int32_t>;

TEST(MetricsTest, TwoClasses) {
  const Classes truth = {1, 1, 1, 0, 0, 1, 0, 1, 0, 0};
  const Classes predicted = {1, 0, 1, 0, 1, 1, 0, 1, 0, 0};
  // 4 of class 1 found, 1 missed, 1 too many, 4 of class 0 found.
  const ClassScores scores = ScoreClasses(predicted, truth, {"no", "yes"});
  EXPECT_DOUBLE_EQ(scores.accuracy, 0.8);
  EXPECT_DOUBLE_EQ(scores.f1, 0.8);
  EXPECT_DOUBLE_EQ(scores.matthews, (4.0 * 4 - 1 * 1) / 25);
  EXPECT_FALSE(scores.pearson.has_value()) << "the classes are no numbers";
  const ClassScores numbered = ScoreClasses(predicted, truth, {"0", "1"});
  ASSERT_TRUE(numbered.pearson.has_value());
  EXPECT_NEAR(*numbered.pearson, scores.matthews, 1e-12) << "φ, for two classes";
}

TEST(MetricsTest, ManyClassesAreAveragedOverThoseThatOccur) {
  const Classes truth = {0, 1, 2, 2, 1, 0};
  const Classes predicted = {0, 2, 2, 2, 1, 1};
  const ClassScores scores = ScoreClasses(predicted, truth, {"0", "1", "2", "3"});
  EXPECT_DOUBLE_EQ(scores.accuracy, 4.0 / 6);
  EXPECT_NEAR(scores.f1, (2.0 / 3 + 1.0 / 2 + 4.0 / 5) / 3, 1e-12) << "nobody said 3";
  EXPECT_NEAR(scores.matthews, 12.0 / std::sqrt(22.0 * 24.0), 1e-12);
  // x = {0,2,2,2,1,1}, y = {0,1,2,2,1,0}: means 4/3 and 1, Σxy − n·m·m' = 11 − 8 = 3.
  EXPECT_NEAR(*scores.pearson, 3 / std::sqrt((14 - 32.0 / 3) * (10 - 6)), 1e-12);
}

TEST(MetricsTest, PearsonKnowsTheDistanceBetweenClasses) {
  const std::vector<std::string> labels = {"1", "2.5", "10"};
  const ClassScores near = ScoreClasses(Classes{0, 1, 1}, Classes{0, 0, 2}, labels);
  const ClassScores far = ScoreClasses(Classes{0, 2, 1}, Classes{0, 0, 2}, labels);
  EXPECT_GT(*near.pearson, *far.pearson);
}

TEST(MetricsTest, OneClassAloneIsNoCorrelation) {
  const ClassScores scores = ScoreClasses(Classes{1, 1}, Classes{1, 1}, {"0", "1"});
  EXPECT_DOUBLE_EQ(scores.accuracy, 1);
  EXPECT_DOUBLE_EQ(scores.f1, 1);
  EXPECT_DOUBLE_EQ(scores.matthews, 0);
  EXPECT_DOUBLE_EQ(*scores.pearson, 0);
  const ClassScores none = ScoreClasses(Classes{0, 0}, Classes{1, 1}, {"0", "1"});
  EXPECT_DOUBLE_EQ(none.f1, 0);
  EXPECT_DOUBLE_EQ(none.accuracy, 0);
}

}  // namespace
}  // namespace weft
