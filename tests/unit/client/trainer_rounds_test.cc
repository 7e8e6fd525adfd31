// Local training over several rounds: what one round leaves the next, which rows and which rates
// come when, and what makes a round reproducible.

#include <cmath>
#include <set>

#include "client/schedule.h"
#include "client/training_state.h"
#include "tests/unit/client/trainer_fixture.h"

namespace weft {
namespace {

using testing::StubbornModel;
using testing::TrainerTest;

class RoundsTest : public TrainerTest {
 protected:
  // Rounds of `steps`, each from what the one before left, through the bytes a site keeps on disk.
  std::vector<TrainOutput> RunRounds(TrainInput input, int rounds) const {
    std::vector<TrainOutput> outputs;
    input.num_rounds = rounds;
    for (int round = 1; round <= rounds; ++round) {
      input.round = static_cast<uint64_t>(round);
      input.training.steps_done = (round - 1) * input.training.local_steps;
      outputs.push_back(Run(input));
      const TrainOutput& last = outputs.back();
      const TrainingState kept{LayoutName(last.state), last.moments, last.step_rule, last.position};
      const Result<TrainingState> read = DecodeTrainingState(*EncodeTrainingState(kept));
      EXPECT_TRUE(read.ok()) << read.status();
      input.start = last.state;
      input.moments = read->moments;
      input.position = read->position;
    }
    return outputs;
  }

  static std::vector<double> Losses(const TrainOutput& output) {
    std::vector<double> losses;
    for (const StepReport& step : output.steps) losses.push_back(step.loss);
    return losses;
  }
};

TEST_F(RoundsTest, ThreeRoundsAreOneLongTrainingUnderEverySchedule) {
  for (const char* schedule : {"constant", "linear", "cosine"}) {
    TrainInput whole = Input(9);
    whole.training.schedule = schedule;
    whole.training.warmup_steps = 4;  // ends inside the second round
    whole.training.weight_decay = 0.01;
    whole.training.grad_clip = 0.5;
    TrainInput part = whole;
    part.training.local_steps = 3;
    const TrainOutput straight = Run(whole);
    const std::vector<TrainOutput> rounds = RunRounds(part, 3);
    ExpectSameBits(rounds.back().state, straight.state);
    for (size_t step = 0; step < 9; ++step) {
      const StepReport& in_round = rounds[step / 3].steps[step % 3];
      EXPECT_EQ(in_round.lr, straight.steps[step].lr) << schedule << " step " << step;
      EXPECT_EQ(in_round.loss, straight.steps[step].loss) << schedule << " step " << step;
    }
  }
}

TEST_F(RoundsTest, RatesAreTheSchedulesOverAllRoundsTogether) {
  TrainInput input = Input(4);
  input.training.schedule = "cosine";
  input.training.warmup_steps = 2;
  const std::vector<TrainOutput> rounds = RunRounds(input, 3);
  for (int64_t step = 0; step < 12; ++step) {
    const double lr = rounds[static_cast<size_t>(step / 4)].steps[static_cast<size_t>(step % 4)].lr;
    EXPECT_DOUBLE_EQ(lr, LearningRate(input.training, step, 12)) << step;
  }
  // A length of its own overrides that of the run.
  input.training.schedule_steps = 5;
  EXPECT_EQ(RunRounds(input, 3).back().steps.back().lr, 0);
}

TEST_F(RoundsTest, WithoutKeptMomentsEveryRoundStartsItsOptimiserAfresh) {
  TrainInput input = Input(3);
  const TrainOutput first = Run(input);
  input.start = first.state;
  input.position = first.position;
  input.training.steps_done = 3;
  const TrainOutput afresh = Run(input);
  EXPECT_EQ(afresh.moments.step, 3);
  input.moments = first.moments;
  const TrainOutput kept = Run(input);
  EXPECT_EQ(kept.moments.step, 6);
  EXPECT_GT(Distance(afresh.state, kept.state), 1e-6);
}

TEST_F(RoundsTest, RowsInFileOrderGoOnWhereTheRoundBeforeEnded) {
  // 12 rows in batches of 5: a round of 3 steps ends in the middle of the second pass.
  TrainInput input = Input(3);
  input.training.batch_size = 5;
  const std::vector<TrainOutput> rounds = RunRounds(input, 2);
  EXPECT_EQ(rounds[0].position, (Batcher::Position{1, 3}));
  EXPECT_EQ(rounds[1].position, (Batcher::Position{2, 6}));
  // By the labels of each batch: rows 3 to 7, 8 to 12 (wrapping), …
  for (size_t step = 0; step < 6; ++step) {
    int64_t labels = 0;
    for (size_t i = 0; i < 5; ++i) labels += rows_[(5 * step + i) % 12].num_labels();
    EXPECT_EQ(rounds[step / 3].steps[step % 3].label_tokens, labels) << step;
  }
}

TEST_F(RoundsTest, APositionOfOtherDataIsForgottenForTheStepsDone) {
  TrainInput input = Input(2);
  input.training.steps_done = 2;
  const std::vector<double> wanted = Losses(Run(input));
  input.position = Batcher::Position{0, 4000};  // the file was longer then
  EXPECT_EQ(Losses(Run(input)), wanted);
}

TEST_F(RoundsTest, ASitesOwnPositionCountsWhereItMissedRounds) {
  TrainInput input = Input(1);
  input.training.batch_size = 3;
  input.training.steps_done = 7;  // of the run; this site has seen three rows
  input.position = Batcher::Position{0, 3};
  int64_t labels = 0;
  for (size_t i = 3; i < 6; ++i) labels += rows_[i].num_labels();
  const TrainOutput output = Run(input);
  EXPECT_EQ(output.steps[0].label_tokens, labels);
  EXPECT_EQ(output.position, (Batcher::Position{0, 6}));
}

TEST_F(RoundsTest, EveryMicroBatchDropsOutElsewhere) {
  TrainInput input = Input(1);
  input.start = Run(Input(10)).state;  // B is no longer zero
  input.start.spec.dropout = 0.4;
  input.training.micro_batch_size = 1;
  input.training.batch_size = 1;
  rows_.assign(2, rows_.front());
  input.rows = rows_;
  const double alone = Run(input).steps[0].loss;
  input.training.batch_size = 2;
  // With one mask for both, the mean over twice the same row would be that of the row.
  EXPECT_GT(std::abs(Run(input).steps[0].loss - alone), 1e-4);
}

TEST_F(RoundsTest, EpochsAreWholePassesWhateverWasLeftBefore) {
  TrainInput input = Input(0);
  input.training.local_epochs = 1;
  input.training.batch_size = 12;
  const TrainOutput plain = Run(input);
  input.position = Batcher::Position{3, 7};
  input.training.steps_done = 17;
  const TrainOutput later = Run(input);
  EXPECT_EQ(later.num_examples, 12u);
  EXPECT_EQ(Losses(later), Losses(plain));
}

TEST_F(RoundsTest, ShuffledRowsDependOnSeedClientAndRoundAndNothingElse) {
  TrainInput input = Input(3);
  input.training.row_order = "shuffle";
  input.seed = 5;
  input.client = "harbour";
  input.round = 2;
  const std::vector<double> losses = Losses(Run(input));
  input.training.steps_done = 40;  // nor on what a site has behind it
  input.position = Batcher::Position{1, 2};
  EXPECT_EQ(Losses(Run(input)), losses);
  TrainInput other = input;
  other.seed = 6;
  EXPECT_NE(Losses(Run(other)), losses);
  other = input;
  other.client = "weaver";
  EXPECT_NE(Losses(Run(other)), losses);
  other = input;
  other.round = 3;
  EXPECT_NE(Losses(Run(other)), losses);
}

TEST_F(RoundsTest, DropoutDependsOnSeedClientRoundAndStep) {
  TrainInput input = Input(4);
  input.training.batch_size = 12;  // the same rows in every step
  input.training.lr = 0;           // and the same adapter
  input.start = Run(Input(8)).state;
  input.start.spec.dropout = 0.4;
  const std::vector<double> losses = Losses(Run(input));
  EXPECT_EQ(std::set<double>(losses.begin(), losses.end()).size(), 4u) << "a mask for each step";
  EXPECT_EQ(Losses(Run(input)), losses);
  for (const auto& change : std::vector<std::function<void(TrainInput&)>>{
           [](TrainInput& i) { i.seed = 2; }, [](TrainInput& i) { i.client = "b"; },
           [](TrainInput& i) { i.round = 9; }}) {
    TrainInput other = input;
    change(other);
    EXPECT_NE(Losses(Run(other)), losses);
  }
}

TEST_F(RoundsTest, CheckpointingAndMicroBatchesOfOneSizeChangeNoBitWithDropout) {
  TrainInput input = Input(4);
  input.start.spec.dropout = 0.2;
  input.training.micro_batch_size = 2;
  const TrainOutput plain = Run(input);
  input.training.gradient_checkpointing = true;
  ExpectSameBits(Run(input).state, plain.state);
}

TEST_F(RoundsTest, AccumulatedMicroBatchesEndWhereTheWholeBatchDoes) {
  TrainInput whole = Input(10);
  whole.training.batch_size = 6;
  whole.training.micro_batch_size = 6;
  const TrainOutput straight = Run(whole);
  for (const int64_t rows : {1, 2, 4}) {  // 4: pieces of 4 and 2
    TrainInput pieces = whole;
    pieces.training.micro_batch_size = rows;
    const TrainOutput output = Run(pieces);
    // Sums in another order: float32 rounding, magnified by AdamW's division by √v̂.
    EXPECT_LT(Distance(output.state, straight.state), 1e-3 * Distance(straight.state, Fresh()))
        << rows;
    EXPECT_EQ(output.label_tokens, straight.label_tokens);
  }
}

TEST_F(RoundsTest, Bfloat16TrainsNearlyTheSame) {
  const auto rounded = LoadModel({.dtype = at::kBFloat16});
  JobControl control;
  const Result<TrainOutput> output = Train(*rounded, Input(15), control);
  ASSERT_TRUE(output.ok()) << output.status();
  const TrainOutput exact = Run(Input(15));
  EXPECT_EQ(output->state.sites[0].Get("A").scalar_type(), at::kFloat);
  for (size_t i = 0; i < exact.steps.size(); ++i) {
    EXPECT_NEAR(output->steps[i].loss, exact.steps[i].loss, 0.03 * exact.steps[i].loss) << i;
  }
}

TEST_F(RoundsTest, RanksThatDifferByLayerTrainEachAtItsOwn) {
  TrainInput input = Input(10);
  AdapterSpec& spec = input.start.spec;
  spec.rank_pattern = {{"layers.0.self_attn.q_proj", 1}, {"down_proj", 7}};
  spec.alpha_pattern = {{"down_proj", 3}};
  input.start = *(*FindAdapter("lora"))->Init(spec, *MatchSites(spec, model_->sites()), 5);
  const TrainOutput output = Run(input);
  EXPECT_LT(output.steps.back().loss, output.steps.front().loss);
  for (const SiteState& site : output.state.sites) {
    EXPECT_EQ(site.Get("B").size(1), RankFor(spec, site.site.path));
    EXPECT_GT(site.Get("B").abs().max().item<float>(), 0) << site.site.path;
  }
}

TEST_F(RoundsTest, AFrozenAdapterIsTheSameAfterwards) {
  const TrainOutput trained = Run(Input(5));
  const AdapterState before = CloneTo(trained.state, at::kCPU, at::kFloat);
  TrainInput input = Input(5);
  input.frozen = {trained.state};
  (void)Run(input);
  ExpectSameBits(trained.state, before);
}

TEST_F(RoundsTest, FixedBatchesAreTakenExactlyAsGiven) {
  TrainInput input = Input(99);  // whatever the settings say
  input.training.row_order = "shuffle";
  input.rows = {};
  input.fixed_batches = {{&rows_[3]}, {&rows_[0], &rows_[3], &rows_[7]}};
  const TrainOutput output = Run(input);
  ASSERT_EQ(output.steps.size(), 2u);
  EXPECT_EQ(output.num_examples, 4u);
  EXPECT_EQ(output.steps[0].label_tokens, rows_[3].num_labels());
  EXPECT_EQ(output.steps[1].tokens,
            static_cast<int64_t>(rows_[0].ids.size() + rows_[3].ids.size() + rows_[7].ids.size()));
}

TEST_F(RoundsTest, RowsWithoutALabelCostNothingAndABatchOfNothingElseIsRefused) {
  TokenRow silent = rows_[0];
  std::fill(silent.labels.begin(), silent.labels.end(), kNoLabel);
  TrainInput with = Input(1);
  with.fixed_batches = {{&rows_[0], &silent, &rows_[1]}};
  with.training.micro_batch_size = 1;
  TrainInput without = Input(1);
  without.fixed_batches = {{&rows_[0], &rows_[1]}};
  without.training.micro_batch_size = 1;
  ExpectSameBits(Run(with).state, Run(without).state);
  TrainInput nothing = Input(1);
  nothing.fixed_batches = {{&silent, &silent}};
  JobControl control;
  const Status status = Train(*model_, nothing, control).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("step 1: no row has a label"), std::string::npos) << status;
}

TEST_F(RoundsTest, AGradientThatIsNotFiniteEndsTheRoundBeforeItDoesHarm) {
  // In full training, where the weights themselves would be spoilt.
  const auto inner = LoadModel({.trainable = true});
  StubbornModel model(inner);
  model.infinite_gradient_at_ = 3;
  TrainInput input = Input(5);
  input.full = true;
  input.training.micro_batch_size = 4;
  input.training.grad_clip = 1;  // a clipped infinity is NaN
  JobControl control;
  const Result<TrainOutput> output = Train(model, input, control);
  ASSERT_FALSE(output.ok());
  EXPECT_EQ(output.status().code(), Code::kInternal);
  EXPECT_NE(output.status().message().find("step 3: the gradient's norm is"), std::string::npos)
      << output.status();
  const auto two_steps = LoadModel({.trainable = true});
  input.training.local_steps = 2;
  ASSERT_TRUE(Train(*two_steps, input, control).ok());
  for (size_t i = 0; i < inner->AllWeights().size(); ++i) {
    EXPECT_TRUE(at::equal(inner->AllWeights()[i].value, two_steps->AllWeights()[i].value))
        << inner->AllWeights()[i].name;
  }
}

TEST_F(RoundsTest, StepsAreReportedInOrderAndCounted) {
  std::vector<int64_t> seen;
  TrainInput input = Input(4);
  JobControl control;
  input.on_step = [&](const StepReport& report) {
    seen.push_back(report.step);
    EXPECT_EQ(report.num_steps, 4);
    EXPECT_FLOAT_EQ(control.progress.load(), static_cast<float>(report.step - 1) / 4);
  };
  ASSERT_TRUE(Train(*model_, input, control).ok());
  EXPECT_EQ(seen, (std::vector<int64_t>{1, 2, 3, 4}));
  EXPECT_EQ(control.progress.load(), 1);
}

}  // namespace
}  // namespace weft
