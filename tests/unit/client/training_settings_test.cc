// What local training may be asked for, and the rates that follow from it.

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "client/schedule.h"

namespace weft {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

TEST(TrainingSettingsTest, TheDefaultsAndEveryDocumentedWordAreTaken) {
  EXPECT_TRUE(CheckTraining({}).ok());
  for (const char* schedule : {"constant", "linear", "cosine"}) {
    LocalTraining training;
    training.schedule = schedule;
    EXPECT_TRUE(CheckTraining(training).ok()) << schedule;
  }
  for (const char* order : {"shuffle", "file"}) {
    LocalTraining training;
    training.row_order = order;
    EXPECT_TRUE(CheckTraining(training).ok()) << order;
  }
  LocalTraining training;
  training.local_epochs = 0;
  training.local_steps = 1;
  training.lr = 0;
  training.micro_batch_size = training.batch_size;
  EXPECT_TRUE(CheckTraining(training).ok());
}

TEST(TrainingSettingsTest, EverySettingOutOfRangeIsNamedWithWhatWasWanted) {
  struct Case {
    std::function<void(LocalTraining&)> change;
    std::string name;
  };
  const std::vector<Case> cases = {
      {[](auto& t) { t.local_steps = -1; }, "local_steps is -1"},
      {[](auto& t) { t.local_epochs = 0; }, "local_epochs is 0"},
      {[](auto& t) { t.batch_size = 0; }, "batch_size is 0"},
      {[](auto& t) { t.micro_batch_size = -2; }, "micro_batch_size is -2"},
      {[](auto& t) { t.micro_batch_size = t.batch_size + 1; }, "micro_batch_size is 9"},
      {[](auto& t) { t.max_len = -5; }, "max_len is -5"},
      {[](auto& t) { t.warmup_steps = -1; }, "warmup_steps is -1"},
      {[](auto& t) { t.schedule_steps = -1; }, "schedule_steps"},
      {[](auto& t) { t.steps_done = -1; }, "steps_done"},
      {[](auto& t) { t.lr = kNan; }, "lr is nan"},
      {[](auto& t) { t.lr = kInfinity; }, "lr is inf"},
      {[](auto& t) { t.lr = -1e-9; }, "lr is -1e-09"},
      {[](auto& t) { t.beta1 = 1; }, "beta is 1"},
      {[](auto& t) { t.beta2 = -0.1; }, "beta is -0.1"},
      {[](auto& t) { t.beta2 = kNan; }, "beta is nan"},
      {[](auto& t) { t.eps = -1; }, "eps is -1"},
      {[](auto& t) { t.weight_decay = kNan; }, "weight_decay is nan"},
      {[](auto& t) { t.grad_clip = -1; }, "grad_clip is -1"},
      {[](auto& t) { t.long_rows = "wrap"; }, "long_rows is \"wrap\""},
      {[](auto& t) { t.row_order = "random"; }, "row_order is random"},
      {[](auto& t) { t.schedule = "wsd"; }, "schedule is wsd"},
      {[](auto& t) { t.optimizer = "sgd"; }, "optimizer is sgd"},
      {[](auto& t) {
         t.objective = "fedprox";
         t.fedprox_mu = -1;
       },
       "fedprox_mu is -1"},
      {[](auto& t) {
         t.objective = "fedprox";
         t.fedprox_mu = kInfinity;
       },
       "fedprox_mu is inf"}};
  for (const Case& one : cases) {
    LocalTraining training;
    one.change(training);
    const Status status = CheckTraining(training);
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << one.name;
    EXPECT_NE(status.message().find(one.name), std::string::npos) << status;
    EXPECT_NE(status.message().find("wanted"), std::string::npos) << status;
  }
}

TEST(TrainingSettingsTest, AnUnknownObjectiveListsTheKnownOnes) {
  LocalTraining training;
  training.objective = "dpo";
  const Status status = CheckTraining(training);
  EXPECT_EQ(status.code(), Code::kNotFound);
  EXPECT_NE(status.message().find("sft, fedprox"), std::string::npos) << status;
}

TEST(LearningRateTest, ItRisesToTheFullRateAndNeverPassesIt) {
  for (const char* schedule : {"constant", "linear", "cosine"}) {
    LocalTraining training;
    training.lr = 0.5;
    training.schedule = schedule;
    for (const int64_t warmup : {0, 1, 7, 40}) {
      for (const int64_t total : {1, 8, 40, 41, 300}) {
        training.warmup_steps = warmup;
        double before = -1;
        for (int64_t step = 0; step < total + 20; ++step) {
          const double lr = LearningRate(training, step, total);
          ASSERT_GE(lr, 0) << schedule << " warmup " << warmup << " step " << step;
          ASSERT_LE(lr, 0.5);
          if (step < warmup) {
            EXPECT_DOUBLE_EQ(lr, 0.5 * static_cast<double>(step) / static_cast<double>(warmup));
          } else if (step > warmup) {
            EXPECT_LE(lr, before) << schedule << ": it only falls after the warm-up";
          } else {
            EXPECT_DOUBLE_EQ(lr, 0.5) << schedule << " warmup " << warmup;
          }
          before = lr;
        }
      }
    }
  }
}

TEST(LearningRateTest, LinearAndCosineEndAtZeroAndMeetInTheMiddle) {
  LocalTraining training;
  training.lr = 1;
  training.warmup_steps = 10;
  for (const char* schedule : {"linear", "cosine"}) {
    training.schedule = schedule;
    EXPECT_NEAR(LearningRate(training, 60, 110), 0.5, 1e-12) << schedule;
    EXPECT_NEAR(LearningRate(training, 110, 110), 0, 1e-12) << schedule;
    EXPECT_NEAR(LearningRate(training, 100000, 110), 0, 1e-12) << schedule;
  }
  // A quarter of the way: 1 − 1/4, and ½(1 + cos(π/4)).
  training.schedule = "linear";
  EXPECT_NEAR(LearningRate(training, 35, 110), 0.75, 1e-12);
  training.schedule = "cosine";
  EXPECT_NEAR(LearningRate(training, 35, 110), 0.5 * (1 + std::sqrt(0.5)), 1e-12);
}

}  // namespace
}  // namespace weft
