#include "tests/integration/federation.h"

#include <chrono>
#include <fstream>
#include <system_error>
#include <thread>
#include <utility>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/config/load.h"
#include "common/net/keys.h"
#include "common/runtime/run_view.h"

namespace weft::testing {
namespace {

std::filesystem::path Example() {
  return std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny";
}

ClientSettings Site(const std::string& name, const std::string& rank) {
  ClientSettings site;
  site.name = name;
  site.data = Example() / "data" / name / "train.jsonl";
  site.valid = Example() / "data" / name / "valid.jsonl";
  site.rank = rank;
  site.max_rows = 40;
  return site;
}

}  // namespace

Settings QuickSettings() {
  Settings settings;
  settings.run.name = "quick";
  settings.run.seed = 7;
  settings.run.num_server_rounds = 3;
  settings.model.path = Example() / "model";
  settings.model.threads = 1;
  settings.model.device = "cpu";
  settings.adapter.rank = 16;
  settings.adapter.alpha = 32;
  settings.adapter.target_modules = {"q_proj",    "k_proj",  "v_proj",   "o_proj",
                                     "gate_proj", "up_proj", "down_proj"};
  settings.train.lr = 3e-3;
  settings.train.local_steps = 2;
  settings.train.batch_size = 4;
  settings.train.grad_clip = 1;
  settings.cohort.min_available_nodes = 3;
  settings.cohort.deadline_s = 120;
  settings.evaluate.data = Example() / "data" / "heldout.jsonl";
  settings.evaluate.max_rows = 12;
  settings.server.bind = "tcp://127.0.0.1:*";
  settings.server.heartbeat_s = 0.5;
  settings.clients = {Site("harbour", "4"), Site("hospital", "8"), Site("weaver", "16")};
  return settings;
}

Settings SettingsWithALargeUpdate() {
  Settings settings = QuickSettings();
  settings.clients.back().rank = "64";
  return settings;
}

Federation::Federation(Settings settings) : settings_(std::move(settings)) {
  settings_.run.dir = run_folder();
  WriteKeys();
  std::ofstream(File("run.toml")) << ToToml(settings_, false);
}

void Federation::WriteKeys() {
  const KeyPair server = NewKeyPair().value();
  EXPECT_TRUE(WriteKeyPair(server, File("server")).ok());
  settings_.server.secret_key = File("server.secret");
  settings_.server.public_key = server.public_key;
  settings_.server.allow_list = File("allow.txt");
  for (ClientSettings& client : settings_.clients) {
    const KeyPair pair = NewKeyPair().value();
    EXPECT_TRUE(WriteKeyPair(pair, File(client.name)).ok());
    EXPECT_TRUE(AllowKey(File("allow.txt"), pair.public_key, ClientId{client.name}).ok());
    client.secret_key = File(client.name + ".secret");
    client.dir = File("client-" + client.name);
  }
}

std::unique_ptr<Process> Federation::Aggregator(const std::vector<std::string>& more) {
  std::vector<std::string> arguments{File("run.toml")};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Listening(std::make_unique<Process>("weft-aggregator", arguments));
}

std::unique_ptr<Process> Federation::Resumed() {
  const std::vector<std::string> arguments{"runs", "resume", run_folder().string()};
  return Listening(std::make_unique<Process>("weft", arguments));
}

std::unique_ptr<Process> Federation::Listening(std::unique_ptr<Process> aggregator) {
  endpoint_ = EndpointOf(*aggregator);
  for (const std::string& site : kSites) link(site).SetTarget(endpoint_);
  return aggregator;
}

std::vector<std::string> Federation::ClientArguments(const std::string& site) {
  return {File("run.toml"), "--name", site, "--server", link(site).endpoint()};
}

std::unique_ptr<Process> Federation::Client(const std::string& site,
                                            const std::vector<std::string>& more) {
  std::vector<std::string> arguments = ClientArguments(site);
  arguments.insert(arguments.end(), more.begin(), more.end());
  return std::make_unique<Process>("weft-client", arguments);
}

bool Federation::WeaverIsHalfWay(uint32_t round) {
  const std::filesystem::path part = run_folder() / Str("spool/round-000", round, "/weaver.part");
  return link("weaver").WaitUntilReached() && Eventually([&] {
           std::error_code error;
           return std::filesystem::file_size(part, error) == 2 * uint64_t{256 * 1024} && !error;
         });
}

std::vector<RunEvent> Federation::Events() const {
  std::vector<RunEvent> events;
  Result<RunReader> reader = RunReader::Open(run_folder());
  if (!reader.ok()) return events;
  const Result<std::vector<LedgerEvent>> rows = reader->Poll();
  EXPECT_TRUE(rows.ok()) << rows.status();
  if (!rows.ok()) return events;
  for (const LedgerEvent& row : *rows) events.push_back(FromEvent(row).value());
  return events;
}

std::vector<std::string> Federation::AcceptedIn(uint32_t round) const {
  std::vector<std::string> names;
  for (const UpdateAccepted& event : EventsOf<UpdateAccepted>()) {
    if (event.header.round.number == round) names.push_back(event.header.client.name);
  }
  return names;
}

std::vector<std::string> Federation::Hashes() const {
  std::vector<std::string> hashes;
  for (const RoundPublished& event : EventsOf<RoundPublished>()) {
    hashes.push_back(event.adapter_sha256);
  }
  return hashes;
}

std::string Federation::SimulatedReport(const std::vector<std::string>& arguments) const {
  std::vector<std::string> all{File("run.toml"), "--json"};
  all.insert(all.end(), arguments.begin(), arguments.end());
  const Ran ran = Execute("weft-sim", all);
  EXPECT_TRUE(Succeeded(ran));
  return ran.out;
}

std::vector<std::string> Federation::SimulatedHashes(
    const std::vector<std::string>& arguments) const {
  const auto report = nlohmann::json::parse(SimulatedReport(arguments), nullptr, false);
  if (!report.is_object()) return {};
  return report.at("adapter_sha256").get<std::vector<std::string>>();
}

::testing::AssertionResult Federation::Verified() const {
  return Succeeded(Execute("weft", {"runs", "verify", run_folder().string()}));
}

Everybody::Everybody(Federation& federation) : aggregator(federation.Aggregator()) {
  for (const std::string& site : kSites) clients[site] = federation.Client(site);
}

void Everybody::ExpectCompleted() {
  EXPECT_EQ(aggregator->Wait(), 0) << Logs();
  for (const auto& [site, client] : clients) EXPECT_EQ(client->Wait(), 0) << Logs();
}

std::string Everybody::Logs() const {
  std::string logs = Str("aggregator:\n", aggregator->log());
  for (const auto& [site, client] : clients) logs += Str(site, ":\n", client->log());
  return logs;
}

std::string EndpointOf(Process& aggregator) {
  EXPECT_TRUE(aggregator.WaitForLine({"listening", "endpoint="})) << aggregator.log();
  const size_t begin = aggregator.log().find("endpoint=") + 9;
  return aggregator.log().substr(begin, aggregator.log().find(' ', begin) - begin);
}

bool Eventually(const std::function<bool()>& holds, double limit_s) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(limit_s);
  while (!holds()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  return true;
}

}  // namespace weft::testing
