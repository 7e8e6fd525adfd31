// Runs that keep their updates: `weft runs verify` merges every round again and finds what the
// hashes of files cannot; `weft runs diff` on the folders of a daemon and of the simulator.

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/crypto/digest.h"
#include "common/runtime/ledger_db.h"
#include "tests/integration/federation.h"

namespace weft::testing {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

Settings KeepingSettings() {
  Settings settings = QuickSettings();
  settings.run.keep_updates = true;
  return settings;
}

/// One run of weft-sim as a run folder, and copies of it to be damaged.
class SimulatedRun {
 public:
  explicit SimulatedRun(const Settings& settings) : federation_(settings) {
    EXPECT_TRUE(
        Succeeded(Execute("weft-sim", {federation_.File("run.toml"), "--out", folder().string()})));
  }
  [[nodiscard]] fs::path folder() const { return federation_.File("simulated"); }
  [[nodiscard]] Federation& federation() { return federation_; }
  [[nodiscard]] fs::path Copy(const std::string& name) const {
    fs::path copy = federation_.File(name);
    fs::copy(folder(), copy, fs::copy_options::recursive);
    return copy;
  }

 private:
  Federation federation_;
};

Ran Verify(const fs::path& folder) { return Execute("weft", {"runs", "verify", folder.string()}); }

Json VerifyJson(const fs::path& folder) {
  const Ran ran = Execute("weft", {"runs", "verify", folder.string(), "--json"});
  const Json json = Json::parse(ran.out, nullptr, false);
  EXPECT_TRUE(json.is_object()) << ran.out << ran.err;
  return json.is_object() ? json : Json::object();
}

/// The ledger as `change` would have it, its chain whole again: what nobody but the merge can find.
void Forge(const fs::path& folder,
           const std::function<void(LedgerEvent& row, Json& body)>& change) {
  std::vector<LedgerEvent> rows;
  {
    LedgerTail tail;
    auto db = LedgerDb::OpenForReading(folder / kLedgerFile);
    ASSERT_TRUE(db.ok()) << db.status();
    auto read = (*db)->ReadAfter(tail);
    ASSERT_TRUE(read.ok()) << read.status();
    rows = std::move(*read);
  }
  for (const char* file : {"run.db", "run.db-wal", "run.db-shm"}) fs::remove(folder / file);
  LedgerTail tail;
  std::vector<LedgerEvent> forged;
  for (LedgerEvent& row : rows) {
    Json body = Json::parse(row.body);
    change(row, body);
    forged.push_back(Chain(tail, {row.kind, body.dump()}, row.wall_us));
  }
  auto db = LedgerDb::OpenForWriting(folder / kLedgerFile);
  ASSERT_TRUE(db.ok()) << db.status();
  const Status written = (*db)->Insert(forged);
  ASSERT_TRUE(written.ok()) << written;
}

/// Flips a bit in the middle of a file; its new SHA-256.
std::string FlipBit(const fs::path& path) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  const auto middle = static_cast<std::streamoff>(fs::file_size(path) / 2);
  file.seekg(middle);
  const int byte = file.get();
  file.seekp(middle);
  file.put(static_cast<char>(byte ^ 0x10));
  file.close();
  return Sha256File(path).value();
}

class KeptStrategiesTest : public ::testing::TestWithParam<const char*> {};

TEST_P(KeptStrategiesTest, EveryRoundIsMergedAgainToTheSameBits) {
  Settings settings = KeepingSettings();
  settings.strategy.name = GetParam();
  settings.cohort.weighting = "tokens";
  if (settings.strategy.name == "native") {
    settings.adapter.method = "msplora";
    for (ClientSettings& client : settings.clients) client.rank = "16";
  }
  const SimulatedRun run(settings);
  const Json json = VerifyJson(run.folder());
  EXPECT_EQ(json["certificates_recomputed"], 3) << json;
  EXPECT_EQ(json["rounds_without_updates"], 0);
  EXPECT_EQ(json["files_spent"], 0);
}

INSTANTIATE_TEST_SUITE_P(Strategies, KeptStrategiesTest,
                         ::testing::Values("exact-svd", "fedavg", "flora", "native"),
                         [](const auto& test) {
                           std::string name = test.param;  // a test's name has no hyphen
                           std::erase(name, '-');
                           return name;
                         });

TEST(KeptUpdatesTest, ADaemonsFolderAndTheSimulatorsAreMergedAgainAndDoNotDiffer) {
  SimulatedRun run(KeepingSettings());
  Everybody everybody(run.federation());
  everybody.ExpectCompleted();
  const fs::path daemon = run.federation().run_folder();
  const Json verified = VerifyJson(daemon);
  EXPECT_EQ(verified["certificates_recomputed"], 3) << verified;

  const Ran ran =
      Execute("weft", {"runs", "diff", daemon.string(), run.folder().string(), "--json"});
  ASSERT_TRUE(Succeeded(ran));
  const Json diff = Json::parse(ran.out);
  EXPECT_EQ(diff["first_different_round"], nullptr);
  EXPECT_TRUE(diff["settings"].empty()) << diff["settings"];
  ASSERT_EQ(diff["rounds"].size(), 4u);
  for (const Json& round : diff["rounds"]) {
    EXPECT_EQ(round["adapter_equal"], true);
    EXPECT_TRUE(round["certificate"].empty()) << round["certificate"];
  }
}

TEST(KeptUpdatesTest, WithoutTheSettingNothingIsKeptAndTheFolderVerifiesAllTheSame) {
  const SimulatedRun run(QuickSettings());
  EXPECT_FALSE(fs::exists(run.folder() / "spool"));
  const Json json = VerifyJson(run.folder());
  EXPECT_EQ(json["ok"], true);
  EXPECT_EQ(json["certificates_recomputed"], 0);
  EXPECT_EQ(json["rounds_without_updates"], 3);
  EXPECT_EQ(json["files_spent"], 9);
}

TEST(KeptUpdatesTest, KernelsAreRecordedAndNamedWhereTheyMayBeTheReason) {
  Settings settings = KeepingSettings();
  settings.run.num_server_rounds = 1;
  const SimulatedRun run(settings);
  const fs::path other = run.Copy("other");
  Forge(other, [](LedgerEvent& row, Json& body) {
    if (row.kind != "round-published" || body["round"] != 1) return;
    EXPECT_EQ(body["kernels"]["threads"], 1);
    EXPECT_NE(body["kernels"]["torch"], "");
    body["kernels"]["cpu"] = "another CPU";
    body["adapter_sha256"] = std::string(64, 'a');
  });
  EXPECT_TRUE(Refused(Verify(other), {"round 1: adapter_sha256: got aaaa", "another CPU, threads 1",
                                      "verify where those of the merge are"}));
}

TEST(KeptUpdatesTest, AnUpdateThatRottedOrIsGoneIsNamedByItsFile) {
  const SimulatedRun run(KeepingSettings());
  const fs::path rotten = run.Copy("rotten");
  FlipBit(rotten / "spool/round-0002/hospital");
  EXPECT_TRUE(Refused(Verify(rotten),
                      {"update-accepted: file spool/round-0002/hospital: has", "the ledger says"}));
  const fs::path gone = run.Copy("gone");
  fs::remove(gone / "spool/round-0001/weaver");
  EXPECT_TRUE(Refused(Verify(gone), {"file spool/round-0001/weaver: is missing"}));
  const fs::path stateless = run.Copy("stateless");
  fs::remove(stateless / "state/round-0000");
  EXPECT_TRUE(Refused(Verify(stateless), {"file state/round-0000: is missing"}));
}

TEST(KeptUpdatesTest, WhatAWholeChainVouchesForMustStillComeOutOfTheMerge) {
  const SimulatedRun run(KeepingSettings());
  const fs::path update = run.Copy("update");
  const std::string sha256 = FlipBit(update / "spool/round-0002/hospital");
  Forge(update, [&](LedgerEvent& row, Json& body) {
    if (row.kind != "update-accepted" || body["blob"] != "spool/round-0002/hospital") return;
    body["header"]["payload_sha256"] = sha256;
  });
  EXPECT_TRUE(Refused(Verify(update), {"round-published: round 2: ", "got", "wanted"}));

  const auto in_round_3 = [](const std::function<void(Json & certificate)>& change) {
    return [change](LedgerEvent& row, Json& body) {
      if (row.kind == "round-published" && body["round"] == 3) change(body["certificate"]);
    };
  };
  const fs::path site = run.Copy("site");
  std::string path;
  Forge(site, in_round_3([&](Json& certificate) {
          Json& one = certificate["sites"][5];
          path = one["path"].get<std::string>();
          one["effective_rank"] = one["effective_rank"].get<double>() * (1 + 1e-8);
        }));
  EXPECT_TRUE(Refused(Verify(site), {"round 3: site " + path + ": effective_rank: got "}));

  const fs::path client = run.Copy("client");
  Forge(client, in_round_3([](Json& certificate) { certificate["client_norms"][1][1] = 0.5; }));
  EXPECT_TRUE(Refused(Verify(client), {"round 3: client_norms.hospital: got 0.5, wanted "}));

  const fs::path norm = run.Copy("norm");
  Forge(norm, [](LedgerEvent& row, Json& body) {
    if (row.kind == "update-accepted" && body["header"]["round"] == 1 &&
        body["header"]["client"] == "weaver") {
      body["update_norm"] = 0.25;
    }
  });
  EXPECT_TRUE(Refused(Verify(norm), {"round 1: update_norm.weaver: got 0.25, wanted "}));

  const fs::path within = run.Copy("within");
  Forge(within, in_round_3([](Json& certificate) {
          certificate["target_norm"] = certificate["target_norm"].get<double>() * (1 + 1e-12);
        }));
  EXPECT_TRUE(Succeeded(Verify(within))) << "of other digits, not of another number";
}

TEST(KeptUpdatesTest, TheSimulatorWritesNoRunOverAnother) {
  SimulatedRun run(QuickSettings());
  const Ran ran =
      Execute("weft-sim", {run.federation().File("run.toml"), "--out", run.folder().string()});
  EXPECT_TRUE(Refused(ran, {run.folder().string(), "it holds a run already"}));
}

TEST(RunsDiffTest, TwoStrategiesPartInTheFirstRound) {
  Settings settings = QuickSettings();
  SimulatedRun exact(settings);
  settings.strategy.name = "fedavg";
  settings.run.num_server_rounds = 2;
  SimulatedRun average(settings);
  const Ran ran = Execute(
      "weft", {"runs", "diff", exact.folder().string(), average.folder().string(), "--json"});
  ASSERT_TRUE(Succeeded(ran));
  const Json diff = Json::parse(ran.out);
  EXPECT_EQ(diff["first_different_round"], 1);
  EXPECT_EQ(diff["rounds"][0]["adapter_equal"], true) << "the same initial adapter";
  EXPECT_EQ(diff["rounds"][3]["in"], "a");
  EXPECT_FALSE(diff["rounds"][1]["certificate"].empty());
  std::vector<std::string> keys;
  for (const Json& setting : diff["settings"]) keys.push_back(setting["key"].get<std::string>());
  EXPECT_NE(std::find(keys.begin(), keys.end(), "strategy.name"), keys.end());
  EXPECT_TRUE(Succeeded(
      Execute("weft", {"runs", "diff", exact.folder().string(), average.folder().string()})));
  EXPECT_TRUE(Refused(Execute("weft", {"runs", "diff", exact.folder().string(),
                                       average.federation().File("client-weaver")}),
                      {"client-weaver", "name a run folder"}));
}

}  // namespace
}  // namespace weft::testing
