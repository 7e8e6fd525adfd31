// The way a user goes: `weft init`, one aggregator, one client a site with its join file.

#include "tests/integration/federation.h"

#include <csignal>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/base/str.h"

namespace weft::testing {
namespace {

using std::filesystem::path;

const path kExample = path(WEFT_SOURCE_DIR) / "examples" / "tiny";

/// What `weft init` writes for the tiny example; sites reach the aggregator at the forwarder.
class InitTest : public ::testing::Test {
 protected:
  InitTest() {
    EXPECT_TRUE(Succeeded(
        Execute("weft", {"init", "--model", kExample / "model", "--config", kExample / "run.toml",
                         "--sites", "harbour,hospital,weaver", "--server", link_.endpoint(),
                         "--out", folder_.path() / "fed", "--set", "run.num-server-rounds=2",
                         "--set", "train.local-steps=4", "--set", "server.heartbeat-s=0.5"})));
  }

  [[nodiscard]] std::string File(const std::string& name) const {
    return folder_.path() / "fed" / name;
  }
  [[nodiscard]] std::unique_ptr<Process> Aggregator() {
    auto aggregator = std::make_unique<Process>(
        "weft-aggregator",
        std::vector<std::string>{File("run.toml"), "--set", "server.bind=tcp://127.0.0.1:*"});
    link_.SetTarget(EndpointOf(*aggregator));
    return aggregator;
  }
  [[nodiscard]] std::vector<std::string> ClientArguments(const std::string& site) const {
    return {File(site + ".toml"), "--data", kExample / "data" / site / "train.jsonl", "--valid",
            kExample / "data" / site / "valid.jsonl"};
  }

  TempFolder folder_;
  TcpForwarder link_;
};

TEST_F(InitTest, WhatItWritesRunsAsTheProcessesItNamesAndTheFolderIsWhole) {
  const auto aggregator = Aggregator();
  std::vector<std::unique_ptr<Process>> clients;
  for (const std::string& site : kSites) {
    clients.push_back(std::make_unique<Process>("weft-client", ClientArguments(site)));
  }
  EXPECT_EQ(aggregator->Wait(), 0) << aggregator->log();
  for (const auto& client : clients) EXPECT_EQ(client->Wait(), 0) << client->log();
  EXPECT_TRUE(exists(path(File("run")) / "adapters" / "round-0002" / "adapter_config.json"));
  EXPECT_TRUE(Succeeded(Execute("weft", {"runs", "verify", File("run")})));
}

TEST_F(InitTest, CheckSaysWhatWouldLeaveTheSiteAndDoesNotJoin) {
  const auto aggregator = Aggregator();
  std::vector<std::string> arguments = ClientArguments("weaver");
  arguments.emplace_back("--check");
  const Ran ran = Execute("weft-client", arguments);
  EXPECT_TRUE(Succeeded(ran));
  for (const char* part : {"model   ok", "data    ok", "210 training rows", "link    ok",
                           "What would leave this site", "check: ok"}) {
    EXPECT_NE(ran.out.find(part), std::string::npos) << part << " is not in\n" << ran.out;
  }
  aggregator->Signal(SIGTERM);
  EXPECT_EQ(aggregator->Wait(), 4);
  EXPECT_EQ(aggregator->log().find("client joined"), std::string::npos);
}

TEST_F(InitTest, CheckWithoutAnAggregatorSaysThatItDoesNotAnswer) {
  std::vector<std::string> arguments = ClientArguments("weaver");
  arguments.insert(arguments.end(), {"--check", "--server", "tcp://127.0.0.1:1"});
  const Ran ran = Execute("weft-client", arguments);
  EXPECT_EQ(ran.code, 1) << ran.err;
  EXPECT_NE(ran.err.find("is the aggregator running"), std::string::npos) << ran.err;
}

}  // namespace
}  // namespace weft::testing
