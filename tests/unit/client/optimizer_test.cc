#include "client/optimizer.h"

#include <cmath>

#include <gtest/gtest.h>

#include "client/schedule.h"

namespace weft {
namespace {

ParameterSet OneTensor(std::vector<float> values, std::vector<float> gradients) {
  return {{at::tensor(values)}, {at::tensor(gradients)}};
}

// Loshchilov and Hutter 2019, algorithm 2, in doubles.
struct Reference {
  double value, m = 0, v = 0;
  void Step(double g, double lr, const LocalTraining& t, int step) {
    value -= lr * t.weight_decay * value;
    m = t.beta1 * m + (1 - t.beta1) * g;
    v = t.beta2 * v + (1 - t.beta2) * g * g;
    const double m_hat = m / (1 - std::pow(t.beta1, step));
    const double v_hat = v / (1 - std::pow(t.beta2, step));
    value -= lr * m_hat / (std::sqrt(v_hat) + t.eps);
  }
};

TEST(AdamWTest, StepsAreThePapers) {
  LocalTraining training;
  training.weight_decay = 0.1;
  ParameterSet set = OneTensor({1.f, -2.f, 0.5f}, {0.3f, -0.01f, 5.f});
  AdamW optimizer(training, set);
  std::vector<Reference> reference = {{1.0}, {-2.0}, {0.5}};
  for (int step = 1; step <= 5; ++step) {
    for (size_t i = 0; i < 3; ++i) {
      reference[i].Step(set.gradients[0][static_cast<int64_t>(i)].item<double>(), 0.01, training,
                        step);
    }
    optimizer.Step(0.01);
    set.gradients[0].mul_(-0.7);
  }
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(set.values[0][static_cast<int64_t>(i)].item<double>(), reference[i].value, 1e-6);
  }
}

TEST(AdamWTest, RestoredMomentsContinueBitForBit) {
  const LocalTraining training;
  ParameterSet whole = OneTensor({1.f, 2.f}, {0.1f, -0.2f});
  AdamW a(training, whole);
  a.Step(0.1);
  ParameterSet copy = {{whole.values[0].clone()}, {whole.gradients[0].clone()}};
  AdamW b(training, copy);
  ASSERT_TRUE(b.Restore(a.Save()).ok());
  a.Step(0.1);
  b.Step(0.1);
  EXPECT_TRUE(at::equal(whole.values[0], copy.values[0]));
  EXPECT_EQ(b.step(), 2);
}

TEST(AdamWTest, ListsOfTensorsAndOneBufferAgree) {
  const LocalTraining training;
  ParameterSet flat = OneTensor({1.f, 2.f, 3.f}, {0.1f, -0.2f, 0.3f});
  ParameterSet list = {{at::tensor({1.f}), at::tensor({2.f, 3.f})},
                       {at::tensor({0.1f}), at::tensor({-0.2f, 0.3f})}};
  EXPECT_NEAR(flat.GradientNorm(), list.GradientNorm(), 1e-7);
  AdamW a(training, flat);
  AdamW b(training, list);
  a.Step(0.1);
  b.Step(0.1);
  EXPECT_TRUE(at::allclose(flat.values[0], at::cat(list.values), 0, 0));
  EXPECT_TRUE(at::equal(a.Save().exp_avg, b.Save().exp_avg));
}

TEST(AdamWTest, MomentsOfSeveralTensorsGoBackToTheirOwn) {
  const LocalTraining training;
  ParameterSet whole = {{at::tensor({1.f}), at::tensor({2.f, 3.f})},
                        {at::tensor({0.1f}), at::tensor({-0.2f, 5.f})}};
  AdamW a(training, whole);
  a.Step(0.1);
  ParameterSet copy = {{whole.values[0].clone(), whole.values[1].clone()}, whole.gradients};
  AdamW b(training, copy);
  ASSERT_TRUE(b.Restore(a.Save()).ok());
  EXPECT_TRUE(at::equal(a.Save().exp_avg, b.Save().exp_avg));
  EXPECT_TRUE(at::equal(a.Save().exp_avg_sq, b.Save().exp_avg_sq));
  a.Step(0.1);
  b.Step(0.1);
  EXPECT_TRUE(at::equal(at::cat(whole.values), at::cat(copy.values)));
}

TEST(ScheduleTest, RatesAreTransformersOwn) {
  LocalTraining training;
  training.lr = 1;
  training.warmup_steps = 4;
  // Computed with get_{constant,linear,cosine}_schedule_with_warmup(…, 4, 10) of transformers.
  const auto rates = [&](const std::string& schedule) {
    training.schedule = schedule;
    std::vector<double> list;
    for (const int64_t step : {0, 2, 4, 7, 10, 12}) {
      list.push_back(LearningRate(training, step, 10));
    }
    return list;
  };
  EXPECT_EQ(rates("constant"), (std::vector<double>{0, 0.5, 1, 1, 1, 1}));
  EXPECT_EQ(rates("linear"), (std::vector<double>{0, 0.5, 1, 0.5, 0, 0}));
  const std::vector<double> cosine = rates("cosine");
  EXPECT_NEAR(cosine[3], 0.5, 1e-12);
  EXPECT_NEAR(cosine[4], 0, 1e-12);
}

TEST(ScheduleTest, StepsCountOverRounds) {
  LocalTraining training;
  training.lr = 1;
  training.schedule = "linear";
  EXPECT_DOUBLE_EQ(LearningRate(training, 5, 20), 0.75);
  EXPECT_DOUBLE_EQ(LearningRate(training, 15, 20), 0.25);
}

}  // namespace
}  // namespace weft
