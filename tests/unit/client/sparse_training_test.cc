// RoseLoRA in training: what is left of an adapter, over rounds and on the wire.

#include "client/training_state.h"
#include "common/adapters/roselora.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "tests/unit/client/trainer_fixture.h"

namespace weft {
namespace {

class SparseTrainingTest : public testing::TrainerTest {
 protected:
  static AdapterState Rose(double start, double end) {
    AdapterSpec spec = Fresh().spec;
    spec.method = "roselora";
    spec.options = {
        {"roselora.keep", "0.25"}, {"roselora.start", Str(start)}, {"roselora.end", Str(end)}};
    return *RoseLoraAdapter()->Init(spec, *MatchSites(spec, model_->sites()), 5);
  }

  TrainInput RoseInput(int64_t steps) const {
    TrainInput input = Input(steps);
    input.start = Rose(0.2, 0.8);
    return input;
  }

  // Every row of A and every column of B keeps as many entries as the rule says.
  static void ExpectPruned(const AdapterState& state) {
    for (const SiteState& site : state.sites) {
      const int64_t row = site.site.in - RoseOrder(site.site.in, 0.25) + 1;
      const int64_t column = site.site.out - RoseOrder(site.site.out, 0.25) + 1;
      EXPECT_TRUE((site.Get("A").ne(0).sum(1) == row).all().item<bool>()) << site.site.path;
      EXPECT_TRUE((site.Get("B").ne(0).sum(0) == column).all().item<bool>()) << site.site.path;
    }
  }
};

TEST_F(SparseTrainingTest, ATrainedAdapterIsAsSparseAsAskedAndHasLearnt) {
  const TrainOutput output = Run(RoseInput(20));
  ExpectPruned(output.state);
  EXPECT_LT(output.steps.back().loss, output.steps.front().loss);
  EXPECT_FALSE(output.step_rule.empty());
  TrainInput micro = RoseInput(20);
  micro.training.micro_batch_size = 2;  // scored once a step, not once a micro-batch
  ExpectPruned(Run(micro).state);
}

TEST_F(SparseTrainingTest, RoundsThatGoOnPruneLikeOneLongTraining) {
  TrainInput input = RoseInput(12);
  const TrainOutput whole = Run(input);
  input.training.local_steps = 4;
  input.num_rounds = 3;
  TrainOutput last;
  for (int64_t round = 1; round <= 3; ++round) {
    input.round = static_cast<uint64_t>(round);
    input.training.steps_done = 4 * (round - 1);
    last = Run(input);
    const TrainingState kept{LayoutName(last.state), last.moments, last.step_rule, last.position};
    const Result<TrainingState> read = DecodeTrainingState(*EncodeTrainingState(kept));
    ASSERT_TRUE(read.ok()) << read.status();
    input.start = last.state;
    input.moments = read->moments;
    input.position = read->position;
    input.step_rule = read->step_rule;
  }
  ExpectPruned(last.state);
  ExpectSameBits(last.state, whole.state);
}

// An adapter that begins anew in the last of three rounds is pruned as one that begins in the
// first: by the schedule of the whole run it would be cut before it had learnt what to keep.
TEST_F(SparseTrainingTest, AnAdapterThatRestartsHasAScheduleOfItsOwn) {
  TrainInput later = RoseInput(20);
  later.num_rounds = 3;
  later.training.steps_done = 40;
  later.enough = [](const StepReport& report) { return report.step == 3; };  // pruning begins at 4
  for (const bool restarts : {true, false}) {
    later.restarts = restarts;
    const at::Tensor A = Run(later).state.sites[0].Get("A");
    EXPECT_EQ(A.ne(0).all().item<bool>(), restarts);
  }
  later.enough = nullptr;
  later.restarts = true;
  ExpectPruned(Run(later).state);
}

TEST_F(SparseTrainingTest, ScoresOfAnotherAdapterEndTheTrainingBeforeItBegins) {
  TrainInput input = RoseInput(4);
  input.step_rule = {{"model.layers.9.self_attn.q_proj.A", at::zeros({4, 32})}};
  JobControl control;
  const Result<TrainOutput> output = Train(*model_, std::move(input), control);
  EXPECT_EQ(output.status().code(), Code::kInvalidArgument);
}

TEST_F(SparseTrainingTest, PayloadsAreOfOneSizeWhateverWasLearnt) {
  std::vector<size_t> sizes;
  size_t dense = 0;
  for (const uint64_t seed : {1, 2, 3}) {
    TrainInput input = RoseInput(12);
    input.training.row_order = "shuffle";
    input.seed = seed;
    const TrainOutput output = Run(input);
    sizes.push_back(EncodeBundle({output.state, std::nullopt}, Float32Codec())->size());
    dense = static_cast<size_t>(output.state.NumParameters()) * sizeof(float);
  }
  EXPECT_EQ(sizes[0], sizes[1]);
  EXPECT_EQ(sizes[1], sizes[2]);
  EXPECT_LT(sizes[0], dense / 2);  // a quarter of the numbers, and where they are
}

TEST_F(SparseTrainingTest, TrainingEndsEarlyWhereItIsEnough) {
  TrainInput input = RoseInput(12);
  input.enough = [](const StepReport& report) { return report.step == 5; };
  const TrainOutput stopped = Run(input);
  EXPECT_EQ(stopped.steps.size(), 5u);
  EXPECT_EQ(stopped.steps.back().num_steps, 12);
  input.enough = {};
  const TrainOutput whole = Run(input);
  EXPECT_EQ(whole.steps[4].loss, stopped.steps[4].loss);
}

}  // namespace
}  // namespace weft
