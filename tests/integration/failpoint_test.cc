// kill −9 at every failpoint of the aggregator and of a client, with real processes over CURVE:
// started again on its folder the process goes on, and the run ends with the bits of an undisturbed
// one. WEFT_KILL_SEED=S: at the (1 + S mod 3)-th pass of each, and of another client.

#include "common/base/failpoint.h"

#include <csignal>
#include <cstdlib>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

struct Death {
  FailpointInfo point;
  bool of_client;
};

void PrintTo(const Death& death, std::ostream* out) { *out << death.point.name; }

std::vector<Death> Deaths() {
  std::vector<Death> deaths;
  for (const FailpointInfo& point : Failpoints()) {
    if (Passes("aggregator", point)) deaths.push_back({point, false});
    if (Passes("client", point)) deaths.push_back({point, true});
  }
  return deaths;
}

uint64_t Seed() {
  const char* const text = std::getenv("WEFT_KILL_SEED");
  return text == nullptr ? 0 : std::strtoull(text, nullptr, 10);
}

class FailpointTest : public ::testing::TestWithParam<Death> {
 protected:
  // Of the same settings for all: what they arrive at undisturbed.
  static const std::vector<std::string>& Undisturbed(const Federation& federation) {
    static const std::vector<std::string> hashes = federation.SimulatedHashes();
    return hashes;
  }
};

INSTANTIATE_TEST_SUITE_P(Everywhere, FailpointTest, ::testing::ValuesIn(Deaths()),
                         [](const auto& test) {
                           std::string name(test.param.point.name);
                           for (char& c : name) c = c == '.' || c == '-' ? '_' : c;
                           return name + (test.param.of_client ? "_of_a_client" : "");
                         });

TEST_P(FailpointTest, AProcessKilledThereGoesOnAndNoBitIsDifferent) {
  Settings settings = SettingsWithALargeUpdate();
  settings.server.gone_after_s = 60;  // nobody is given up while it is started again
  Federation federation(settings);
  const std::vector<std::string> calm = Undisturbed(federation);
  // The first writes are made before anybody has joined.
  const uint64_t first = GetParam().point.process == "all" ? 4 : 1;
  const std::string armed = Str(GetParam().point.name, ":", first + Seed() % 3);
  const std::string& site = kSites[(Seed() + 2) % kSites.size()];
  // A client that dies after its last update has to be told that the run is over.
  std::unique_ptr<Process> aggregator =
      federation.Aggregator(GetParam().of_client ? std::vector<std::string>{"--keep-running"}
                                                 : std::vector<std::string>{"--failpoint", armed});
  std::map<std::string, std::unique_ptr<Process>> clients;
  for (const std::string& each : kSites) {
    const bool dies = GetParam().of_client && each == site;
    clients[each] = federation.Client(
        each, dies ? std::vector<std::string>{"--failpoint", armed} : std::vector<std::string>{});
  }
  if (GetParam().of_client) {
    ASSERT_EQ(clients[site]->Wait(), -SIGKILL) << armed << clients[site]->log();
    clients[site] = federation.Client(site);
  } else {
    ASSERT_EQ(aggregator->Wait(), -SIGKILL) << armed << aggregator->log();
    aggregator = federation.Aggregator();
  }
  for (const auto& [each, client] : clients) EXPECT_EQ(client->Wait(), 0) << client->log();
  if (GetParam().of_client) aggregator->Signal(SIGTERM);
  EXPECT_EQ(aggregator->Wait(), 0) << aggregator->log();
  EXPECT_EQ(federation.Hashes(), calm);
  for (const uint32_t round : {1U, 2U, 3U}) {
    EXPECT_EQ(federation.AcceptedIn(round).size(), 3U) << "each update counts once";
  }
  EXPECT_TRUE(federation.Verified());
}

TEST(FailpointsTest, NamesThatMakeNoSenseAreRefusedAtTheStart) {
  for (const char* name : {"client.nowhere", "aggregator.round-merged", "client.update-kept:0"}) {
    const Ran ran = Execute("weft-client", {"join.toml", "--failpoint", name});
    EXPECT_EQ(ran.code, 2) << name;
    EXPECT_NE(ran.err.find("--failpoint"), std::string::npos) << ran.err;
  }
  const Ran listed = Execute("weft-aggregator", {"--list-failpoints"});
  EXPECT_EQ(listed.code, 0);
  EXPECT_NE(listed.out.find("aggregator.update-sealed"), std::string::npos);
  EXPECT_EQ(listed.out.find("client."), std::string::npos);
}

}  // namespace
}  // namespace weft::testing
