// A tree of real processes over CURVE links: an aggregator, two relays, and their sites. It arrives
// where the flat federation of the same sites does, and loses nothing when a relay is killed.

#include <algorithm>
#include <csignal>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/base/failpoint.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/net/keys.h"
#include "common/runtime/run_view.h"
#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

struct Branch {
  std::string relay;
  std::vector<std::string> sites;
};

const std::vector<Branch>& Branches() {
  static const auto* branches =
      new std::vector<Branch>{{"north", {"harbour", "hospital"}}, {"south", {"weaver"}}};
  return *branches;
}

/// The files of the tree. Every link goes over a forwarder, for processes come back on other ports.
class Tree {
 public:
  /// `middle`: the two relays are members of a third, and that alone is the aggregator's.
  explicit Tree(bool middle = false) {
    Settings root = QuickSettings();
    root.strategy.global_rank = 16;
    flat_ = root;
    root.run.dir = folder_.path() / "run";
    root.cohort.min_available_nodes = middle ? 1 : 2;
    root.clients.clear();
    root.server = Server("root", root.server);
    Write("root", root);
    Settings above = root;
    if (middle) above = WriteRelay({"middle", {}}, root);
    for (const Branch& branch : Branches()) WriteRelay(branch, above);
    std::ofstream(File("flat.toml")) << ToToml(flat_, false);
  }

  [[nodiscard]] std::string File(const std::string& name) const {
    return (folder_.path() / name).string();
  }
  [[nodiscard]] TcpForwarder& link(const std::string& server) { return links_[server]; }

  [[nodiscard]] std::unique_ptr<Process> Root(const std::vector<std::string>& more = {}) {
    return Listening("root", "weft-aggregator", more);
  }
  [[nodiscard]] std::unique_ptr<Process> Relay(const std::string& name,
                                               const std::vector<std::string>& more = {},
                                               const std::string& above = "root") {
    std::vector<std::string> arguments{"--server", link(above).endpoint()};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Listening(name, "weft-relay", arguments);
  }
  [[nodiscard]] std::unique_ptr<Process> Client(const std::string& relay, const std::string& site) {
    return std::make_unique<Process>(
        "weft-client", std::vector<std::string>{File(relay + ".toml"), "--name", site, "--server",
                                                link(relay).endpoint()});
  }

  template <typename E>
  [[nodiscard]] std::vector<E> EventsOf(const std::string& run) const {
    std::vector<E> found;
    Result<RunReader> reader = RunReader::Open(folder_.path() / run);
    if (!reader.ok()) return found;
    const Result<std::vector<LedgerEvent>> rows = reader->Poll();
    if (!rows.ok()) return found;
    for (const LedgerEvent& row : *rows) {
      if (row.kind == E::kKind) found.push_back(FromEvent<E>(row).value());
    }
    return found;
  }
  [[nodiscard]] std::vector<std::string> Hashes(const std::string& run = "run") const {
    std::vector<std::string> hashes;
    for (const RoundPublished& event : EventsOf<RoundPublished>(run)) {
      hashes.push_back(event.adapter_sha256);
    }
    return hashes;
  }
  [[nodiscard]] std::vector<double> Losses(const std::string& run = "run") const {
    std::vector<double> losses;
    for (const ServerEvaluated& event : EventsOf<ServerEvaluated>(run))
      losses.push_back(event.loss);
    return losses;
  }
  [[nodiscard]] ::testing::AssertionResult Verified(const std::string& run) const {
    return Succeeded(Execute("weft", {"runs", "verify", File(run)}));
  }

 private:
  ServerSettings Server(const std::string& name, ServerSettings server) {
    const KeyPair keys = NewKeyPair().value();
    EXPECT_TRUE(WriteKeyPair(keys, File(name + "-server")).ok());
    server.secret_key = File(name + "-server.secret");
    server.public_key = keys.public_key;
    server.allow_list = File(name + "-allow.txt");
    return server;
  }
  // A key of that name, which the server lets in.
  std::string Member(const std::string& server, const std::string& name) {
    const KeyPair keys = NewKeyPair().value();
    EXPECT_TRUE(WriteKeyPair(keys, File(name)).ok());
    EXPECT_TRUE(AllowKey(File(server + "-allow.txt"), keys.public_key, ClientId{name}).ok());
    return File(name + ".secret");
  }
  Settings WriteRelay(const Branch& branch, const Settings& above) {
    Settings settings = above;
    const std::string parent = above.relay.name.empty() ? "root" : above.relay.name;
    settings.run.dir = folder_.path() / branch.relay;
    settings.relay = {.name = branch.relay,
                      .address = "tcp://127.0.0.1:1",  // --server says where
                      .public_key = above.server.public_key,
                      .secret_key = Member(parent, branch.relay)};
    settings.server = Server(branch.relay, QuickSettings().server);
    settings.cohort.min_available_nodes =
        branch.sites.empty() ? 2 : static_cast<int64_t>(branch.sites.size());
    for (ClientSettings client : QuickSettings().clients) {
      if (std::find(branch.sites.begin(), branch.sites.end(), client.name) == branch.sites.end()) {
        continue;
      }
      client.secret_key = Member(branch.relay, client.name);
      client.dir = File("client-" + client.name);
      settings.clients.push_back(client);
    }
    Write(branch.relay, settings);
    return settings;
  }
  void Write(const std::string& name, const Settings& settings) {
    std::ofstream(File(name + ".toml")) << ToToml(settings, false);
  }
  std::unique_ptr<Process> Listening(const std::string& name, const std::string& program,
                                     const std::vector<std::string>& more) {
    std::vector<std::string> arguments{File(name + ".toml")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    auto process = std::make_unique<Process>(program, arguments);
    link(name).SetTarget(EndpointOf(*process));
    return process;
  }

  TempFolder folder_;
  Settings flat_;
  std::map<std::string, TcpForwarder> links_;
};

/// All processes of it.
struct Everyone {
  /// `north` are more arguments of the relay of that name.
  explicit Everyone(Tree& tree, const std::vector<std::string>& north = {},
                    const std::string& above = "root")
      : root(tree.Root()) {
    for (const Branch& branch : Branches()) {
      relays[branch.relay] =
          tree.Relay(branch.relay, branch.relay == "north" ? north : none, above);
      for (const std::string& site : branch.sites) {
        clients[site] = tree.Client(branch.relay, site);
      }
    }
  }
  void ExpectCompleted() {
    EXPECT_EQ(root->Wait(), 0) << Logs();
    for (const auto& [name, relay] : relays) EXPECT_EQ(relay->Wait(), 0) << Logs();
    for (const auto& [name, client] : clients) EXPECT_EQ(client->Wait(), 0) << Logs();
  }
  [[nodiscard]] std::string Logs() const {
    std::string logs = Str("root:\n", root->log());
    for (const auto& [name, relay] : relays) logs += Str(name, ":\n", relay->log());
    for (const auto& [name, client] : clients) logs += Str(name, ":\n", client->log());
    return logs;
  }

  const std::vector<std::string> none;
  std::unique_ptr<Process> root;
  std::map<std::string, std::unique_ptr<Process>> relays;
  std::map<std::string, std::unique_ptr<Process>> clients;
};

/// The hashes of a tree that nobody disturbs.
const std::vector<std::string>& Undisturbed() {
  static const auto* hashes = [] {
    Tree tree;
    Everyone(tree).ExpectCompleted();
    return new std::vector<std::string>(tree.Hashes());
  }();
  return *hashes;
}

// Of the run of all sites without relays, and what it must have come to.
void ExpectAsFlat(const Tree& tree) {
  const Ran flat = Execute("weft-sim", {tree.File("flat.toml"), "--json"});
  ASSERT_TRUE(Succeeded(flat));
  const auto wanted = nlohmann::json::parse(flat.out).at("eval_loss").get<std::vector<double>>();
  const std::vector<double> got = tree.Losses();
  ASSERT_EQ(got.size(), wanted.size());
  EXPECT_LT(got.back(), got.front() - 0.1) << "it learns";
  for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 1e-4) << "version " << i;
}

TEST(RelayTest, ATreeArrivesWhereTheFlatFederationDoes) {
  Tree tree;
  Everyone(tree).ExpectCompleted();
  ExpectAsFlat(tree);
  // The sites' own evaluations come through as well.
  const auto reports = tree.EventsOf<EvalReported>("run");
  EXPECT_EQ(reports.size(), 2 * tree.Losses().size());
  for (const EvalReported& event : reports) EXPECT_GT(event.report.label_tokens, 0u);
  for (const Branch& branch : Branches()) {
    const auto forwarded = tree.EventsOf<UpdateForwarded>(branch.relay);
    EXPECT_EQ(forwarded.size(), 3u) << branch.relay;
    for (const UpdateForwarded& event : forwarded) EXPECT_LT(event.error, 1e-6);
    EXPECT_TRUE(tree.Verified(branch.relay));
  }
  EXPECT_TRUE(tree.Verified("run"));
}

TEST(RelayTest, SoDoesATreeOfThreeLevels) {
  Tree tree(/*middle=*/true);
  Everyone all(tree, {}, "middle");
  all.relays["middle"] = tree.Relay("middle");
  all.ExpectCompleted();
  ExpectAsFlat(tree);
  EXPECT_EQ(tree.EventsOf<UpdateAccepted>("run").size(), 3u) << "one a round";
  for (const UpdateAccepted& event : tree.EventsOf<UpdateAccepted>("run")) {
    EXPECT_EQ(event.header.num_examples, 3u * 2 * 4) << "steps × batch of three sites";
  }
}

std::vector<std::string> Deaths() {
  std::vector<std::string> deaths;
  for (const FailpointInfo& point : Failpoints()) {
    // A relay publishes nothing.
    if (point.point == Failpoint::kAdapterExported) continue;
    // The first writes are made before anybody has joined.
    deaths.push_back(Str(point.name, point.process == "all" ? ":6" : ":2"));
  }
  return deaths;
}

class RelayFailpointTest : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Everywhere, RelayFailpointTest, ::testing::ValuesIn(Deaths()),
                         [](const auto& test) {
                           std::string name = test.param.substr(0, test.param.find(':'));
                           for (char& c : name) c = c == '.' || c == '-' ? '_' : c;
                           return name;
                         });

TEST_P(RelayFailpointTest, ARelayKilledThereGoesOnAndTheTreeEndsWithTheSameBits) {
  Tree tree;
  Everyone all(tree, {"--failpoint", GetParam()});
  ASSERT_EQ(all.relays["north"]->Wait(), -SIGKILL) << all.Logs();
  all.relays["north"] = tree.Relay("north");
  all.ExpectCompleted();
  EXPECT_EQ(tree.Hashes(), Undisturbed());
  EXPECT_EQ(tree.EventsOf<UpdateAccepted>("run").size(), 6u) << "each update counts once";
  EXPECT_TRUE(tree.Verified("north"));
}

TEST(RelayTest, ARootThatWasKilledFindsItsRelaysAgain) {
  Tree tree;
  Everyone all(tree);
  ASSERT_TRUE(Eventually([&] { return tree.EventsOf<UpdateAccepted>("run").size() >= 1; }));
  all.root->Signal(SIGKILL);
  ASSERT_EQ(all.root->Wait(), -SIGKILL);
  all.root = tree.Root();
  all.ExpectCompleted();
  EXPECT_EQ(tree.Hashes(), Undisturbed());
}

TEST(RelayTest, AStoppedRelayEndsItsMembersAndGoesOnWhenStartedAgain) {
  Tree tree;
  Everyone all(tree);
  ASSERT_TRUE(Eventually([&] { return !tree.EventsOf<UpdateForwarded>("north").empty(); }));
  all.relays["north"]->Signal(SIGTERM);
  EXPECT_EQ(all.relays["north"]->Wait(), 4) << all.Logs();
  for (const char* site : {"harbour", "hospital"}) EXPECT_EQ(all.clients[site]->Wait(), 4);
  all.relays["north"] = tree.Relay("north");
  for (const char* site : {"harbour", "hospital"}) all.clients[site] = tree.Client("north", site);
  all.ExpectCompleted();
  EXPECT_EQ(tree.Hashes(), Undisturbed());
}

TEST(RelayTest, WhatDoesNotBelongTogetherIsRefusedWithTheReason) {
  Tree tree;
  const auto root = tree.Root({"--set", "cohort.weighting=uniform"});
  const auto relay = tree.Relay("south");
  const auto client = tree.Client("south", "weaver");
  EXPECT_EQ(relay->Wait(), 3) << relay->log();
  EXPECT_NE(relay->log().find("it is a relay"), std::string::npos) << relay->log();
  EXPECT_NE(client->Wait(), 0) << client->log();
  root->Signal(SIGTERM);
  EXPECT_EQ(root->Wait(), 4);
}

}  // namespace
}  // namespace weft::testing
