// Whole federations in one process: what their result depends on, and what it must not.

#include <cmath>
#include <filesystem>
#include <set>

#include "common/adapters/peft_io.h"
#include "common/codec/adapter_block.h"
#include "tests/sim/small_federation.h"

namespace weft::sim {
namespace {

using SimulationTest = SmallFederation;

TEST_F(SimulationTest, ARunTrainsAndReportsEveryRound) {
  const Result<SimulationReport> report = Run(Usual());
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->clients, 3u);
  EXPECT_EQ(report->adapter_sha256.size(), 4u);
  EXPECT_EQ(
      std::set<std::string>(report->adapter_sha256.begin(), report->adapter_sha256.end()).size(),
      4u);
  ASSERT_EQ(report->eval_loss.size(), 4u) << "one before training";
  EXPECT_LT(report->eval_loss.back(), report->eval_loss.front());
  EXPECT_EQ(report->round_wall_s.size(), 3u);
  EXPECT_GT(report->client_steps_per_s, 0);
  // Two steps of 100 ms and a few messages a round, in the world's own time.
  EXPECT_GT(report->virtual_s, 3 * 0.2);
  EXPECT_LT(report->virtual_s, 60);
  EXPECT_EQ(report->run.state, "finished:completed");
  for (const RoundRow& round : report->run.rounds) {
    if (round.round == 0) continue;
    EXPECT_EQ(round.accepted, 3u);
    EXPECT_LE(round.certificate.error_before_truncation, 1e-6);
    ASSERT_EQ(round.clients.size(), 3u);
    EXPECT_EQ(round.clients[0].rank, 2);
    EXPECT_EQ(round.clients[2].rank, 6);
    EXPECT_EQ(round.clients[1].steps, 2u);
  }
}

TEST_F(SimulationTest, TheSameBitsWithOneWorkerAndWithFourForEveryStrategy) {
  for (const char* strategy : {"exact-svd", "fedavg", "flora"}) {
    Settings settings = Usual(strategy);
    const std::vector<std::string> one = Hashes(settings);
    settings.sim.workers = 4;
    EXPECT_EQ(Hashes(settings), one) << strategy;
  }
}

TEST_F(SimulationTest, TheSameBitsInVirtualTimeAndOverQueuesInRealTime) {
  Settings settings = Usual();
  const std::vector<std::string> in_virtual_time = Hashes(settings);
  settings.sim.world = "inproc";
  settings.sim.workers = 2;
  EXPECT_EQ(Hashes(settings), in_virtual_time);
}

TEST_F(SimulationTest, LinksChangeTheTimeAndNotTheResult) {
  Settings settings = Usual();
  const Result<SimulationReport> fast = Run(settings);
  settings.sim.latency_ms = 400;
  settings.sim.bandwidth_mbps = 0.05;
  settings.sim.step_cost_ms = 3000;
  const Result<SimulationReport> slow = Run(settings);
  ASSERT_TRUE(fast.ok() && slow.ok()) << fast.status() << slow.status();
  EXPECT_EQ(slow->adapter_sha256, fast->adapter_sha256);
  EXPECT_GT(slow->virtual_s, fast->virtual_s + 3 * 6);
}

TEST_F(SimulationTest, TheSeedDecidesTheResult) {
  Settings settings = Usual();
  const std::vector<std::string> five = Hashes(settings);
  EXPECT_EQ(Hashes(settings), five);
  settings.run.seed = 6;
  EXPECT_NE(Hashes(settings).back(), five.back());
}

TEST_F(SimulationTest, EveryRoundsAdapterIsWrittenAndThePublishedOne) {
  const weft::testing::TempFolder out;
  SimulationOptions options;
  options.settings = Usual("flora");
  options.out_dir = out.path().string();
  const Result<SimulationReport> report = Simulate(options);
  ASSERT_TRUE(report.ok()) << report.status();
  const auto model = *Model::Load(File("model"), {});
  for (const char* name : {"round-0000", "round-0001", "round-0002", "round-0003"}) {
    const Result<PeftFolder> read = ReadPeft(out.path() / "adapters" / name, model->sites());
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*AdapterSha256(read->state),
              report->adapter_sha256.at(static_cast<size_t>(name[9] - '0')))
        << name;
  }
}

TEST_F(SimulationTest, EveryPartitionOfTheDataRuns) {
  for (const char* kind : {"iid", "round-robin", "dirichlet", "field", "shard", "size"}) {
    Settings settings = Usual("fedavg");
    settings.run.num_server_rounds = 1;
    settings.sim.partition = kind;
    settings.sim.field = "port";
    const Result<SimulationReport> report = Run(settings);
    ASSERT_TRUE(report.ok()) << kind << report.status();
    uint64_t examples = 0;
    for (const MemberRow& member : report->run.members) {
      examples += member.capabilities.num_examples;
    }
    EXPECT_EQ(examples, 40u) << kind << ": 48 rows less 8 for evaluation";
  }
}

TEST_F(SimulationTest, SampledCohortsTrainAndTheOthersWait) {
  Settings settings = Usual();
  settings.sim.clients = 8;
  settings.cohort.min_available_nodes = 8;
  settings.cohort.fraction_train = 0.5;
  settings.cohort.min_train_nodes = 2;
  const Result<SimulationReport> report = Run(settings);
  ASSERT_TRUE(report.ok()) << report.status();
  std::set<std::string> seen;
  for (const RoundRow& round : report->run.rounds) {
    if (round.round == 0) continue;
    EXPECT_EQ(round.cohort, 4u);
    for (const ClientRow& client : round.clients) seen.insert(client.client);
  }
  EXPECT_GT(seen.size(), 4u) << "another half each round";
}

TEST_F(SimulationTest, MemoryIsPlannedForTheLongestRowAndNotForTheModelsContext) {
  const weft::testing::TempFolder folder;
  ASSERT_TRUE(weft::testing::WriteSmallModel(folder.path() / "model").ok());
  std::string config = weft::testing::kSmallConfig;
  const std::string context = "\"max_position_embeddings\":64";
  ASSERT_NE(config.find(context), std::string::npos);
  config.replace(config.find(context), context.size(), "\"max_position_embeddings\":100000");
  folder.Write("model/config.json", config);
  SimulationOptions options;
  options.settings = Usual("fedavg");
  options.settings.model.path = (folder.path() / "model").string();
  options.settings.run.num_server_rounds = 1;
  options.settings.train.max_len = 0;
  options.settings.sim.memory_mb = 100;  // 100,000 tokens a row would need a gigabyte
  std::string notices;
  options.on_notice = [&](const std::string& text) { notices += text + "\n"; };
  const Result<SimulationReport> report = Simulate(options);
  ASSERT_TRUE(report.ok()) << report.status();
  const std::string wanted = "MB for rows of ";
  ASSERT_NE(notices.find(wanted), std::string::npos) << notices;
  const int tokens = std::stoi(notices.substr(notices.find(wanted) + wanted.size()));
  EXPECT_GT(tokens, 5) << notices;
  EXPECT_LT(tokens, 64) << notices;
}

TEST_F(SimulationTest, WhatCannotBeSimulatedIsSaidBeforehand) {
  const auto error = [](Settings settings) { return Run(settings).status(); };
  Settings none = Usual();
  none.sim.clients = 0;
  EXPECT_NE(error(none).message().find("no clients"), std::string::npos);
  Settings no_data = Usual();
  no_data.sim.data.clear();
  EXPECT_NE(error(no_data).message().find("--data"), std::string::npos);
  Settings crowded = Usual();
  crowded.sim.clients = 41;  // of 40 rows
  EXPECT_EQ(error(crowded).code(), Code::kInvalidArgument);
  Settings small = Usual();
  small.sim.memory_mb = 1;
  EXPECT_EQ(error(small).code(), Code::kResourceExhausted);
  Settings wrong = Usual();
  wrong.adapter.target_modules = {"query"};
  EXPECT_NE(error(wrong).message().find("\"query\" matches no linear layer"), std::string::npos);
  Settings inproc = Usual();
  inproc.sim.world = "inproc";
  EXPECT_NE(Run(inproc, FaultPlan{}).status().message().find("virtual world"), std::string::npos);
}

TEST_F(SimulationTest, ASiteThatDivergesFailsTheRunByName) {
  Settings settings = Usual();
  settings.train.lr = 1e18;
  settings.cohort.round_retries = 0;
  const Status status = Run(settings).status();
  ASSERT_FALSE(status.ok());
  EXPECT_NE(status.message().find("client-"), std::string::npos) << status;
}

}  // namespace
}  // namespace weft::sim
