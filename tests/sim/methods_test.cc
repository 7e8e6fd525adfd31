// Federations of every adapter method, and of all of them together.

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "tests/sim/small_federation.h"

namespace weft::sim {
namespace {

constexpr double kExact = 1e-6;

class MethodsTest : public SmallFederation {
 protected:
  static Settings OneOfEach(const std::string& strategy) {
    Settings settings = Usual(strategy);
    settings.adapter.options = {{"nola.k", "32"}};
    settings.sim.methods.clear();
    for (const Adapter* method : AdapterRegistry()) {
      settings.sim.methods.emplace_back(method->name());
    }
    settings.sim.clients = static_cast<int64_t>(settings.sim.methods.size());
    settings.sim.ranks = {4};
    settings.cohort.min_available_nodes = settings.sim.clients;
    settings.cohort.min_train_nodes = settings.sim.clients;
    settings.train.local_steps = 6;
    settings.run.num_server_rounds = 4;
    return settings;
  }

  // Before truncation every rule that says it is exact is; flora truncates nothing here.
  static void ExpectExact(const SimulationReport& report, const std::string& strategy) {
    for (const RoundRow& round : report.run.rounds) {
      EXPECT_LE(round.certificate.error_before_truncation, kExact) << round.round;
      if (strategy != "flora") continue;
      EXPECT_LE(round.certificate.error_published, kExact) << round.round;
    }
  }

  static void ExpectLossFalls(const std::vector<double>& loss) {
    for (size_t round = 1; round < loss.size(); ++round) {
      EXPECT_LT(loss[round], loss[round - 1]) << round;
    }
  }
};

TEST_F(MethodsTest, OneClientOfEachMethodMergeExactlyAndTheLossFallsEveryRound) {
  for (const char* strategy : {"exact-svd", "flora"}) {
    const Result<SimulationReport> report = Run(OneOfEach(strategy));
    ASSERT_TRUE(report.ok()) << strategy << report.status();
    ExpectExact(*report, strategy);
    ExpectLossFalls(report->eval_loss);
    std::vector<std::string> methods;
    for (const ShippedRow& row : Shipped(report->run)) methods.push_back(row.method);
    EXPECT_EQ(methods, OneOfEach(strategy).sim.methods);
  }
}

TEST_F(MethodsTest, EveryMethodAloneLearnsUnderBothRules) {
  for (const Adapter* method : AdapterRegistry()) {
    for (const char* strategy : {"exact-svd", "flora"}) {
      Settings settings = Usual(strategy);
      settings.adapter.method = method->name();
      settings.train.local_steps = 6;
      const Result<SimulationReport> report = Run(settings);
      ASSERT_TRUE(report.ok()) << method->name() << report.status();
      ExpectExact(*report, strategy);
      EXPECT_LT(report->eval_loss.back(), report->eval_loss.front()) << method->name() << strategy;
    }
  }
}

TEST_F(MethodsTest, InTheirOwnCoordinatesMethodsGoOnFromTheMergeAndLearn) {
  for (const char* name : {"msplora", "kasa", "nola"}) {
    Settings settings = Usual("native");
    settings.adapter.method = name;
    if (settings.adapter.method == "nola") {
      settings.adapter.options = {{"nola.k", "32"}, {"nola.rounds", "alternate"}};
      settings.train.lr = 0.02;
    }
    settings.sim.ranks = {4};
    settings.train.local_steps = 6;
    settings.run.num_server_rounds = 4;
    const Result<SimulationReport> report = Run(settings);
    ASSERT_TRUE(report.ok()) << name << report.status();
    ExpectExact(*report, "native");
    EXPECT_LT(report->eval_loss.back(), report->eval_loss.front()) << name;
    settings.sim.workers = 3;
    EXPECT_EQ(Hashes(settings), report->adapter_sha256) << name;
  }
}

TEST_F(MethodsTest, PersonalTiersStayAtTheirSites) {
  for (const char* strategy : {"exact-svd", "native"}) {
    Settings settings = Usual(strategy);
    settings.adapter.method = "msplora";
    settings.sim.ranks = {4};
    const Result<SimulationReport> whole = Run(settings);
    settings.adapter.options = {{"msplora.part", "personal"}};
    const Result<SimulationReport> personal = Run(settings);
    ASSERT_TRUE(whole.ok() && personal.ok()) << whole.status() << personal.status();
    ExpectExact(*personal, strategy);
    EXPECT_LT(Shipped(personal->run)[0].bytes_up, Shipped(whole->run)[0].bytes_up) << strategy;
    settings.sim.workers = 3;
    EXPECT_EQ(Hashes(settings), personal->adapter_sha256) << strategy;
    FaultPlan crash;
    crash.crashes = {{ClientId{"client-1"}, Seconds(0.3), Seconds(2)}};
    settings.cohort.round_retries = 20;
    EXPECT_EQ(Hashes(settings, crash), personal->adapter_sha256)
        << "what a site keeps outlives it: " << strategy;
  }
}

TEST_F(MethodsTest, ASiteOfALowerRankIsRefusedWhereTheRuleMergesOneRankOnly) {
  Settings settings = Usual("native");
  settings.adapter.method = "msplora";
  settings.sim.ranks = {4, 2, 4};
  settings.cohort.join_deadline_s = 5;
  const Result<SimulationReport> report = Run(settings);
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), Code::kDeadlineExceeded) << report.status();
}

TEST_F(MethodsTest, WhatAMethodTakesOutOfTheBaseIsTheSameInEveryRound) {
  Settings settings = Usual("exact-svd");
  settings.adapter.method = "kasa";
  const Result<SimulationReport> report = Run(settings);
  ASSERT_TRUE(report.ok()) << report.status();
  Settings plain = settings;
  plain.adapter.options = {{"kasa.truncate", "0"}};
  const Result<SimulationReport> whole = Run(plain);
  ASSERT_TRUE(whole.ok()) << whole.status();
  EXPECT_NE(report->eval_loss.front(), whole->eval_loss.front())
      << "the truncated base is another model before anybody trains";
}

TEST_F(MethodsTest, AMethodThatTheRuleCannotMergeWithTheRunsIsRefusedAtTheDoor) {
  Settings settings = OneOfEach("fedavg");
  settings.cohort.join_deadline_s = 5;
  const Result<SimulationReport> report = Run(settings);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("missing"), std::string::npos) << report.status();
}

}  // namespace
}  // namespace weft::sim
