// A federation that classifies: real training of adapter and head on a small encoder, labels that
// no client holds all of.

#include <gtest/gtest.h>

#include "common/adapters/peft_io.h"
#include "common/evaluate/evaluate_classes.h"
#include "common/model/bind_dense.h"
#include "sim/simulation.h"
#include "tests/support/small_encoder.h"
#include "tests/support/temp_folder.h"

namespace weft::sim {
namespace {

class ClassifyFederationTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    ASSERT_TRUE(weft::testing::WriteSmallEncoder(folder_.path() / "model").ok());
    rows_ = folder_.Write("rows.jsonl", weft::testing::SmallSentiment(68)).string();
    settings_.run.name = "classes";
    settings_.run.seed = 5;
    settings_.run.num_server_rounds = 8;
    settings_.run.log_level = "error";
    settings_.model.path = (folder_.path() / "model").string();
    settings_.model.device = "cpu";
    settings_.model.threads = 1;
    settings_.adapter.rank = 4;
    settings_.adapter.alpha = 8;
    settings_.adapter.target_modules = {"query", "value"};
    settings_.adapter.modules_to_save = {"classifier"};
    settings_.adapter.labels = {"bad", "good"};
    settings_.strategy.name = GetParam();
    settings_.train.local_steps = 10;
    settings_.train.batch_size = 8;
    settings_.train.lr = 0.02;
    settings_.cohort.min_train_nodes = 3;
    settings_.cohort.min_available_nodes = 3;
    settings_.sim.clients = 3;
    settings_.sim.data = rows_;
    settings_.sim.partition = "dirichlet";
    settings_.sim.field = "label";
    settings_.sim.dirichlet_alpha = 0.5;
    settings_.sim.eval_rows = 20;
    settings_.sim.workers = 1;
  }

  Result<SimulationReport> Run() {
    SimulationOptions options;
    options.settings = settings_;
    options.out_dir = out_.path().string();
    return Simulate(std::move(options));
  }

  weft::testing::TempFolder folder_, out_;
  std::string rows_;
  Settings settings_;
};

TEST_P(ClassifyFederationTest, AdapterAndHeadLearnTogether) {
  const Result<SimulationReport> report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->eval_loss.size(), 9u);
  if (std::string_view(GetParam()) != "flora") {  // which restarts every round, from skewed rows
    EXPECT_LT(report->eval_loss.back(), 0.6 * report->eval_loss.front());
  }
  const Metrics& metrics = report->run.rounds.back().server_metrics;
  ASSERT_FALSE(metrics.empty());
  EXPECT_EQ(metrics[0].first, "accuracy");
  EXPECT_GT(metrics[0].second, 0.85);
  EXPECT_LT(report->run.rounds.front().server_metrics[0].second, 0.7);
  // The last adapter, read as anybody would read it.
  const auto model = *Model::Load(settings_.model.path, {});
  const Result<PeftFolder> peft = ReadPeft(out_.path() / "adapters" / "round-0008", model->sites());
  ASSERT_TRUE(peft.ok()) << peft.status();
  const std::unique_ptr<Tokenizer> tokenizer = Tokenizer::Load(settings_.model.path).value();
  TokenizeOptions options;
  options.labels = peft->state.spec.labels;
  options.max_len = 32;
  const auto rows = ReadRows(rows_);
  const auto tokens = TokenizeRows(*rows, *tokenizer, options);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const at::NoGradGuard no_grad;
  const auto applied = Apply(*model, peft->state);
  ASSERT_TRUE(applied.ok()) << applied.status();
  JobControl control;
  const auto scores =
      EvaluateClasses(*model, {*applied}, tokens->rows, options.labels, 16, control);
  ASSERT_TRUE(scores.ok()) << scores.status();
  EXPECT_GT(scores->scores.accuracy, 0.9);
}

TEST_P(ClassifyFederationTest, TheSameSeedGivesTheSameBits) {
  settings_.run.num_server_rounds = 2;
  const Result<SimulationReport> one = Run();
  settings_.sim.workers = 3;
  const Result<SimulationReport> three = Run();
  ASSERT_TRUE(one.ok() && three.ok()) << one.status() << three.status();
  EXPECT_EQ(one->adapter_sha256, three->adapter_sha256);
}

TEST_P(ClassifyFederationTest, ClassesMustBeNamedAndTheHeadTrained) {
  settings_.adapter.labels = {};
  Result<SimulationReport> report = Run();
  EXPECT_FALSE(report.ok());
  settings_.adapter.labels = {"bad", "good"};
  settings_.adapter.modules_to_save = {};
  report = Run();
  EXPECT_NE(report.status().message().find("name \"classifier\""), std::string::npos)
      << report.status();
}

INSTANTIATE_TEST_SUITE_P(Strategies, ClassifyFederationTest,
                         ::testing::Values("exact-svd", "fedavg", "flora"));

}  // namespace
}  // namespace weft::sim
