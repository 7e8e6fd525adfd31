#include "client/trainer.h"

#include "tests/unit/client/trainer_fixture.h"

namespace weft {
namespace {

using testing::StubbornModel;
using testing::TrainerTest;

TEST_F(TrainerTest, LossFallsAndEverythingIsCounted) {
  const TrainOutput output = Run(Input(30));
  ASSERT_EQ(output.steps.size(), 30u);
  EXPECT_LT(output.steps.back().loss, 0.9 * output.steps.front().loss);
  EXPECT_EQ(output.num_examples, 120u);
  uint64_t labels = 0;
  double sum = 0;
  for (const StepReport& step : output.steps) {
    labels += static_cast<uint64_t>(step.label_tokens);
    sum += step.loss * static_cast<double>(step.label_tokens);
  }
  EXPECT_EQ(output.label_tokens, labels);
  EXPECT_DOUBLE_EQ(output.train_loss, sum / static_cast<double>(labels));
}

TEST_F(TrainerTest, SameInputSameBits) {
  TrainInput input = Input(5);
  input.training.row_order = "shuffle";
  input.start.spec.dropout = 0.1;
  const TrainOutput a = Run(input);
  const TrainOutput b = Run(input);
  ExpectSameBits(a.state, b.state);
}

TEST_F(TrainerTest, StartIsNotTouched) {
  const TrainInput input = Input(2);
  const at::Tensor before = input.start.sites[0].Get("A").clone();
  (void)Run(input);
  EXPECT_TRUE(at::equal(input.start.sites[0].Get("A"), before));
}

TEST_F(TrainerTest, MicroBatchesGiveTheWholeBatchsGradient) {
  TrainInput whole = Input(3);
  whole.training.micro_batch_size = 4;
  TrainInput pieces = Input(3);
  pieces.training.micro_batch_size = 1;  // rows have different numbers of labels
  const TrainOutput a = Run(whole);
  const TrainOutput b = Run(pieces);
  for (size_t i = 0; i < a.steps.size(); ++i) {
    EXPECT_NEAR(a.steps[i].loss, b.steps[i].loss, 1e-5 * a.steps[i].loss);
    EXPECT_NEAR(a.steps[i].grad_norm, b.steps[i].grad_norm, 1e-4 * a.steps[i].grad_norm);
  }
}

TEST_F(TrainerTest, PaddingAndCheckpointingChangeNoLoss) {
  const TrainOutput packed = Run(Input(3));
  TrainInput padded = Input(3);
  padded.training.packing = false;
  TrainInput checkpointed = Input(3);
  checkpointed.training.gradient_checkpointing = true;
  const TrainOutput a = Run(padded);
  const TrainOutput b = Run(checkpointed);
  for (size_t i = 0; i < packed.steps.size(); ++i) {
    EXPECT_NEAR(a.steps[i].loss, packed.steps[i].loss, 1e-5 * packed.steps[i].loss);
    EXPECT_NEAR(b.steps[i].loss, packed.steps[i].loss, 1e-5 * packed.steps[i].loss);
  }
}

TEST_F(TrainerTest, StepThatDoesNotFitIsTriedAgainInSmallerPieces) {
  StubbornModel model(model_);
  model.rows_max_ = 1;
  std::vector<std::string> notices;
  TrainInput input = Input(2);
  input.on_notice = [&](const std::string& text) { notices.push_back(text); };
  JobControl control;
  const Result<TrainOutput> output = Train(model, input, control);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->micro_batch_rows, 1);
  EXPECT_EQ(output->memory_retries, 2);  // 4 → 2 → 1
  ASSERT_EQ(notices.size(), 3u);         // the plan, then each retry
  EXPECT_NE(notices[0].find("memory: base"), std::string::npos);
  EXPECT_NE(notices[1].find("micro-batches of 2 rows"), std::string::npos) << notices[1];
  const TrainOutput plenty = Run(Input(2));
  EXPECT_NEAR(output->steps[1].loss, plenty.steps[1].loss, 1e-5 * plenty.steps[1].loss);
}

TEST_F(TrainerTest, OneRowThatDoesNotFitIsResourceExhausted) {
  StubbornModel model(model_);
  model.rows_max_ = 0;
  JobControl control;
  EXPECT_EQ(Train(model, Input(2), control).status().code(), Code::kResourceExhausted);
}

TEST_F(TrainerTest, LossThatIsNoNumberEndsTheRoundAndNamesTheStep) {
  StubbornModel model(model_);
  model.nan_at_ = 3;
  JobControl control;
  const Result<TrainOutput> output = Train(model, Input(5), control);
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.status().code(), Code::kInternal);
  EXPECT_NE(output.status().message().find("step 3: the loss is"), std::string::npos)
      << output.status();
}

TEST_F(TrainerTest, CancelledTrainingStops) {
  JobControl control;
  TrainInput input = Input(50);
  input.on_step = [&](const StepReport& report) { control.cancelled = report.step == 2; };
  EXPECT_EQ(Train(*model_, input, control).status().code(), Code::kCancelled);
  EXPECT_FLOAT_EQ(control.progress.load(), 2.f / 50.f);
}

TEST_F(TrainerTest, KeptMomentsAndPositionContinueTheRoundBefore) {
  const TrainOutput whole = Run(Input(6));
  const TrainOutput first = Run(Input(3));
  TrainInput second = Input(3);
  second.start = first.state;
  second.moments = first.moments;
  second.position = first.position;
  second.training.steps_done = 3;
  const TrainOutput resumed = Run(second);
  for (size_t i = 0; i < whole.state.sites.size(); ++i) {
    EXPECT_TRUE(at::equal(whole.state.sites[i].Get("B"), resumed.state.sites[i].Get("B")));
  }
  second.position.reset();  // steps_done says where the rows go on
  EXPECT_EQ(Run(second).steps[0].loss, resumed.steps[0].loss);
}

TEST_F(TrainerTest, MomentsOfAnotherAdapterAreRefused) {
  TrainInput input = Input(1);
  input.moments = AdamW::Moments{1, at::zeros({3}), at::zeros({3})};
  JobControl control;
  EXPECT_EQ(Train(*model_, input, control).status().code(), Code::kInvalidArgument);
}

TEST_F(TrainerTest, FedProxStaysNearerToWhatWasSent) {
  TrainInput sft = Input(15);
  TrainInput weak = Input(15);
  weak.training.objective = "fedprox";
  weak.training.fedprox_mu = 0;
  TrainInput strong = weak;
  strong.training.fedprox_mu = 10;
  const AdapterState start = Fresh();
  const double free_distance = Distance(Run(sft).state, start);
  EXPECT_EQ(Distance(Run(weak).state, start), free_distance);
  EXPECT_LT(Distance(Run(strong).state, start), 0.9 * free_distance);
}

TEST_F(TrainerTest, FrozenAdapterIsAppliedAndStaysAsItIs) {
  const TrainOutput trained = Run(Input(10));
  TrainInput input = Input(1);
  input.frozen = {trained.state};
  TrainInput continued = Input(1);
  continued.start = trained.state;
  // A fresh adapter beside the frozen one computes what the frozen one alone does.
  EXPECT_NEAR(Run(input).steps[0].loss, Run(continued).steps[0].loss, 1e-5);
}

TEST_F(TrainerTest, EpochsAreWholePasses) {
  TrainInput input = Input(0);
  input.training.local_epochs = 2;
  input.training.batch_size = 5;
  const TrainOutput output = Run(input);
  EXPECT_EQ(output.steps.size(), 6u);  // 5 + 5 + 2, twice
  EXPECT_EQ(output.num_examples, 24u);
}

TEST_F(TrainerTest, ClippingBoundsTheUpdateAndReportsTheNormBefore) {
  TrainInput input = Input(1);
  const double norm = Run(input).steps[0].grad_norm;
  input.training.grad_clip = norm / 100;
  input.training.eps = 1;  // makes AdamW's step depend on the gradient's size
  const TrainOutput clipped = Run(input);
  EXPECT_DOUBLE_EQ(clipped.steps[0].grad_norm, norm);
  input.training.grad_clip = 0;
  const TrainOutput free = Run(input);
  EXPECT_LT(Distance(clipped.state, Fresh()), 0.05 * Distance(free.state, Fresh()));
}

TEST_F(TrainerTest, AClipAboveTheNormNeverEnlargesTheGradient) {
  TrainInput input = Input(3);
  input.training.eps = 1;  // makes AdamW's step depend on the gradient's size
  const TrainOutput free = Run(input);
  input.training.grad_clip = 1e6;
  ExpectSameBits(Run(input).state, free.state);
}

TEST_F(TrainerTest, WrongSettingsAndSavedModulesAreRefused) {
  const auto code = [&](auto change) {
    TrainInput input = Input(1);
    change(input);
    JobControl control;
    return Train(*model_, std::move(input), control).status().code();
  };
  EXPECT_EQ(code([](TrainInput& i) { i.training.lr = -1; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](TrainInput& i) { i.training.optimizer = "sgd"; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](TrainInput& i) { i.training.schedule = "step"; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](TrainInput& i) { i.training.objective = "dpo"; }), Code::kNotFound);
  EXPECT_EQ(code([](TrainInput& i) { i.training.beta2 = 1; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](TrainInput& i) { i.training.micro_batch_size = 9; }), Code::kInvalidArgument);
  EXPECT_EQ(code([](TrainInput& i) {
              i.start.dense.push_back({"lm_head.weight", at::ones({1})});
            }),
            Code::kInvalidArgument)
      << "only a classification head is trained whole";
  EXPECT_EQ(code([](TrainInput& i) { i.full = true; }), Code::kFailedPrecondition);
}

TEST_F(TrainerTest, FullFineTuningChangesTheModelsOwnWeights) {
  const auto model = LoadModel({.trainable = true});
  TrainInput input = Input(10);
  input.full = true;
  input.training.lr = 1e-2;
  JobControl control;
  const Result<TrainOutput> output = Train(*model, input, control);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_LT(output->steps.back().loss, 0.8 * output->steps.front().loss);
  const std::vector<NamedTensor> before = model_->AllWeights();
  const std::vector<NamedTensor> after = model->AllWeights();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_FALSE(at::equal(before[i].value, after[i].value)) << before[i].name;
  }
}

}  // namespace
}  // namespace weft
