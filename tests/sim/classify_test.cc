// A federation that classifies: real training of adapter and head on a small encoder, labels that
// no client holds all of.

#include <gtest/gtest.h>

#include "common/adapters/peft_io.h"
#include "common/codec/adapter_block.h"
#include "common/evaluate/evaluate_classes.h"
#include "common/evaluate/measure_curvature.h"
#include "common/laplace/statistics_file.h"
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

  Result<SimulationReport> Run(std::optional<FaultPlan> faults = std::nullopt) {
    SimulationOptions options;
    options.faults = std::move(faults);
    options.settings = settings_;
    ++runs_;
    options.out_dir = Out().string();
    return Simulate(std::move(options));
  }

  /// The folder of the last run; each has one of its own.
  [[nodiscard]] std::filesystem::path Out() const {
    return out_.path() / ("run-" + std::to_string(runs_));
  }

  weft::testing::TempFolder folder_, out_;
  int runs_ = 0;
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
  const Result<PeftFolder> peft = ReadPeft(Out() / "adapters" / "round-0008", model->sites());
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

/// Statistics of the last adapter over all rows that were trained on, in one place.
LaplaceStatistics Centralised(const Settings& settings, const std::filesystem::path& out) {
  const auto model = *Model::Load(settings.model.path, {});
  const std::string last =
      "round-000" + std::to_string(settings.run.num_server_rounds);  // a name has four digits
  const PeftFolder peft = *ReadPeft(out / "adapters" / last, model->sites());
  TokenizeOptions options;
  options.labels = peft.state.spec.labels;
  options.max_len = 32;
  std::vector<Row> rows = *ReadRows(settings.sim.data);
  rows.erase(rows.begin(), rows.begin() + settings.sim.eval_rows);
  const TokenRows tokens =
      *TokenizeRows(rows, *Tokenizer::Load(settings.model.path).value(), options);
  JobControl control;
  return *MeasureCurvature({*model, peft.state, {}, *AdapterSha256(peft.state)}, tokens.rows, {},
                           control);
}

TEST_P(ClassifyFederationTest, ThePosteriorOfTheSitesIsThatOfAllRowsTogether) {
  settings_.run.num_server_rounds = 2;
  settings_.laplace.fit = true;
  settings_.sim.dirichlet_alpha = 0.05;  // sites with rows of one class alone
  const Result<SimulationReport> report = Run();
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->adapter_sha256.size(), 3u) << "measuring publishes nothing";
  ASSERT_TRUE(report->run.posterior.has_value());
  const PosteriorFitted& fitted = *report->run.posterior;
  EXPECT_EQ(fitted.version.number, 2u);
  EXPECT_EQ(fitted.clients.size(), 3u);
  EXPECT_EQ(fitted.examples, 48u);
  EXPECT_EQ(report->run.rounds.back().state, "measured");
  EXPECT_EQ(Shipped(report->run)[0].updates, 2u) << "statistics are no updates";
  const Result<StatisticsFile> file = ReadStatistics(Out() / fitted.file.name);
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->precision, fitted.precision);
  const LaplaceStatistics wanted = Centralised(settings_, Out());
  const LaplaceStatistics& got = file->statistics;
  EXPECT_EQ(got.adapter_hash, wanted.adapter_hash) << "of the exported folder";
  EXPECT_NEAR(got.log_likelihood, wanted.log_likelihood, 1e-6 * -wanted.log_likelihood);
  ASSERT_EQ(got.matrices.size(), wanted.matrices.size());
  for (size_t m = 0; m < wanted.matrices.size(); ++m) {
    const MatrixStatistics& matrix = wanted.matrices[m];
    const auto distance = [](const Gram& a, const Gram& b) {
      return ((a.Matrix() - b.Matrix()).norm() / b.Matrix().norm()).item<double>();
    };
    EXPECT_LE(distance(got.matrices[m].input, matrix.input), 1e-6) << matrix.name;
    EXPECT_LE(distance(got.matrices[m].output, matrix.output), 1e-5) << matrix.name;
  }
}

TEST_P(ClassifyFederationTest, APosteriorOutlivesCrashesAndIsTheSameWithAnyNumberOfWorkers) {
  settings_.run.num_server_rounds = 1;
  settings_.laplace.fit = true;
  settings_.cohort.round_retries = 20;
  settings_.cohort.join_deadline_s = 0;
  const Result<SimulationReport> calm = Run();
  ASSERT_TRUE(calm.ok()) << calm.status();
  settings_.sim.workers = 3;
  const Result<SimulationReport> three = Run();
  ASSERT_TRUE(three.ok()) << three.status();
  EXPECT_EQ(three->run.posterior->file.sha256, calm->run.posterior->file.sha256);
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    FaultBounds bounds;
    bounds.span_s = 6;
    const std::vector<ClientId> names = {{"client-0"}, {"client-1"}, {"client-2"}};
    const Result<SimulationReport> stormy = Run(DrawFaultPlan(seed, names, bounds));
    ASSERT_TRUE(stormy.ok()) << seed << stormy.status();
    ASSERT_TRUE(stormy->run.posterior.has_value()) << seed;
    EXPECT_EQ(stormy->run.posterior->file.sha256, calm->run.posterior->file.sha256) << seed;
  }
}

TEST_P(ClassifyFederationTest, APosteriorOfWhatHasNoneIsRefusedAtTheStart) {
  settings_.laplace.fit = true;
  settings_.adapter.labels = {};
  Result<SimulationReport> report = Run();
  EXPECT_NE(report.status().message().find("[laplace] fit"), std::string::npos) << report.status();
  settings_.adapter.labels = {"bad", "good"};
  if (std::string_view(GetParam()) == "fedavg") return;  // it merges LoRA only
  settings_.adapter.method = "kasa";
  report = Run();
  EXPECT_NE(report.status().message().find("[laplace] fit"), std::string::npos) << report.status();
}

INSTANTIATE_TEST_SUITE_P(Strategies, ClassifyFederationTest,
                         ::testing::Values("exact-svd", "fedavg", "flora"));

}  // namespace
}  // namespace weft::sim
