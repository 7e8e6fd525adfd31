// The aggregator's own evaluation: the global adapter of a state, on the rows it was given.

#include "aggregator/evaluate_work.h"

#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/strategies/state_block.h"
#include "common/evaluate/evaluate_rows.h"
#include "common/model/bind_adapter.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using testing::TempFolder;

class EvaluateWorkTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(testing::WriteSmallModel(folder_.path() / "model").ok());
    std::string rows;
    for (int i = 0; i < 7; ++i) {
      rows += R"({"prompt": "ship )" + std::to_string(i) +
              R"(", "completion": "sails"})"
              "\n";
    }
    settings_.model.path = (folder_.path() / "model").string();
    settings_.model.device = "cpu";
    settings_.evaluate.data = folder_.Write("rows.jsonl", rows).string();
    settings_.evaluate.batch_size = 3;
  }

  static Result<ServerEvaluateJob::Output> Evaluate(ServerEvaluation evaluation,
                                                    const Blob& state) {
    WorkTable table;
    RegisterServerEvaluation(table, std::move(evaluation));
    JobControl control;
    const std::any result =
        table.Run(std::any(ServerEvaluateJob{.state = state, .version = RoundId{1}}), control);
    return std::any_cast<const Result<ServerEvaluateJob::Output>&>(result);
  }

  GlobalState State(const Model& model, double b) const {
    AdapterSpec spec;
    spec.rank = 2;
    spec.target_modules = {"q_proj", "down_proj"};
    const Strategy& strategy = **FindStrategy("exact-svd");
    GlobalState state = *strategy.Init(spec, *MatchSites(spec, model.sites()), 1);
    for (SiteState& site : state.adapter.sites) site.Get("B").fill_(b);
    return state;
  }

  TempFolder folder_;
  Settings settings_;
};

TEST_F(EvaluateWorkTest, ItIsTheLossOfTheModelWithTheGlobalAdapter) {
  const Result<ServerEvaluation> evaluation = LoadServerEvaluation(settings_);
  ASSERT_TRUE(evaluation.ok()) << evaluation.status();
  EXPECT_EQ(evaluation->rows->rows.size(), 7u);
  std::vector<double> losses;
  for (const double b : {0.0, 0.2}) {
    const GlobalState state = State(*evaluation->model, b);
    const auto found = Evaluate(*evaluation, EncodeState(state)->bytes);
    ASSERT_TRUE(found.ok()) << found.status();
    JobControl control;
    const at::NoGradGuard no_grad;
    const AdapterBinding binding = {*FactorsFor(*evaluation->model, *Lower(state.adapter))};
    const RowsLoss wanted =
        *EvaluateRows(*evaluation->model, binding, evaluation->rows->rows, 7, control);
    EXPECT_NEAR(found->loss, wanted.loss, 1e-6 * wanted.loss);
    EXPECT_EQ(found->label_tokens, wanted.label_tokens);
    losses.push_back(found->loss);
  }
  EXPECT_GT(std::abs(losses[0] - losses[1]), 1e-4) << "the adapter must matter";
}

TEST_F(EvaluateWorkTest, RowsAreBoundedAndCutAsInTraining) {
  settings_.evaluate.max_rows = 2;
  settings_.train.max_len = 10;
  const Result<ServerEvaluation> evaluation = LoadServerEvaluation(settings_);
  ASSERT_TRUE(evaluation.ok()) << evaluation.status();
  EXPECT_EQ(evaluation->rows->summary.rows_read, 2u);
  for (const TokenRow& row : evaluation->rows->rows) EXPECT_LE(row.ids.size(), 10u);
}

TEST_F(EvaluateWorkTest, WithoutABaseModelItSaysWhatIsMissing) {
  settings_.model.path.clear();
  const Status status = LoadServerEvaluation(settings_).status();
  EXPECT_NE(status.message().find("[model] path"), std::string::npos) << status;
  settings_.model.path = (folder_.path() / "model").string();
  settings_.evaluate.data = "/no/such/rows.jsonl";
  EXPECT_FALSE(LoadServerEvaluation(settings_).ok());
}

TEST_F(EvaluateWorkTest, AStateOfAnotherModelOrNoStateAtAllIsAStatus) {
  const Result<ServerEvaluation> evaluation = LoadServerEvaluation(settings_);
  ASSERT_TRUE(evaluation.ok()) << evaluation.status();
  EXPECT_FALSE(Evaluate(*evaluation, Blob::Copy("no state")).ok());
  GlobalState state = State(*evaluation->model, 0.1);
  state.adapter.sites[0].site.path = "model.layers.7.self_attn.q_proj";
  const auto other = Evaluate(*evaluation, EncodeState(state)->bytes);
  ASSERT_FALSE(other.ok());
  EXPECT_NE(other.status().message().find("layers.7"), std::string::npos) << other.status();
}

}  // namespace
}  // namespace weft
