#pragma once
// A federation small enough to be run many times in a test: three sites of ranks 2, 4 and 6 on a
// random model of two layers, real training and real merges.

#include <optional>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sim/simulation.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft::sim {

class SmallFederation : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = std::make_unique<weft::testing::TempFolder>();
    ASSERT_TRUE(weft::testing::WriteSmallModel(folder_->path() / "model").ok());
    std::string rows;
    for (int i = 0; i < 48; ++i) {
      rows += R"({"prompt": "ship )" + std::to_string(i) + R"(", "completion": "sails at )" +
              std::to_string(i % 7) + R"(", "port": "p)" + std::to_string(i % 4) + "\"}\n";
    }
    folder_->Write("rows.jsonl", rows);
  }
  static void TearDownTestSuite() { folder_.reset(); }

  static std::string File(const std::string& name) { return (folder_->path() / name).string(); }

  static Settings Usual(const std::string& strategy = "exact-svd") {
    Settings settings;
    settings.run.name = "small";
    settings.run.seed = 5;
    settings.run.num_server_rounds = 3;
    settings.run.log_level = "error";
    settings.model.path = File("model");
    settings.model.device = "cpu";
    settings.model.threads = 1;
    settings.adapter.rank = 4;
    settings.adapter.alpha = 8;
    settings.adapter.target_modules = {"q_proj", "v_proj", "down_proj"};
    settings.strategy.name = strategy;
    settings.train.local_steps = 2;
    settings.train.batch_size = 4;
    settings.train.lr = 5e-3;
    settings.cohort.min_train_nodes = 3;
    settings.cohort.min_available_nodes = 3;
    settings.sim.clients = 3;
    settings.sim.data = File("rows.jsonl");
    settings.sim.eval_rows = 8;
    settings.sim.ranks = {2, 4, 6};
    settings.sim.workers = 1;
    return settings;
  }

  // Short rounds, patient with the absent, so that drawn faults fall into all phases of them.
  static Settings Patient(const std::string& strategy = "exact-svd") {
    Settings settings = Usual(strategy);
    settings.sim.step_cost_ms = 1500;
    settings.server.heartbeat_s = 1;
    settings.server.gone_after_s = 15;
    settings.cohort.deadline_s = 120;
    settings.cohort.round_retries = 20;
    settings.cohort.join_deadline_s = 0;
    settings.cohort.evaluate_deadline_s = 60;
    return settings;
  }

  static Result<SimulationReport> Run(const Settings& settings,
                                      std::optional<FaultPlan> faults = std::nullopt) {
    SimulationOptions options;
    options.settings = settings;
    options.faults = std::move(faults);
    return Simulate(std::move(options));
  }

  /// The adapter's hash after every version; fails the test where the run does.
  static std::vector<std::string> Hashes(const Settings& settings,
                                         std::optional<FaultPlan> faults = std::nullopt) {
    const Result<SimulationReport> report = Run(settings, std::move(faults));
    EXPECT_TRUE(report.ok()) << report.status();
    return report.ok() ? report->adapter_sha256 : std::vector<std::string>{};
  }

  static std::vector<ClientId> Names() {
    return {ClientId{"client-0"}, ClientId{"client-1"}, ClientId{"client-2"}};
  }

 private:
  inline static std::unique_ptr<weft::testing::TempFolder> folder_;
};

}  // namespace weft::sim
