// The built binaries as a user runs them: init, an aggregator and three clients over CURVE, and
// what happens when one of them is killed.

#include <csignal>
#include <filesystem>
#include <memory>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/runtime/file_store.h"
#include "common/runtime/run_events.h"
#include "tests/integration/process.h"
#include "tests/support/post_queue.h"

namespace weft::testing {
namespace {

using std::filesystem::path;

const path kExample = path(WEFT_SOURCE_DIR) / "examples" / "tiny";

/// A federation of the tiny example's three sites in a folder of its own.
class Federation {
 public:
  Federation() {
    const int port = 20000 + static_cast<int>(::getpid() % 20000);
    std::string log;
    const int code = RunProgram("weft",
                                {"init",
                                 "--model",
                                 (kExample / "model").string(),
                                 "--config",
                                 (kExample / "run.toml").string(),
                                 "--sites",
                                 "harbour,hospital,weaver",
                                 "--server",
                                 Str("tcp://127.0.0.1:", port),
                                 "--out",
                                 (folder_.path() / "fed").string(),
                                 "--set",
                                 "run.num-server-rounds=3",
                                 "--set",
                                 "train.local-steps=6",
                                 "--set",
                                 "server.gone-after-s=4",
                                 "--set",
                                 "server.heartbeat-s=0.5",
                                 "--set",
                                 "cohort.quorum=0.6"},
                                &log);
    EXPECT_EQ(code, 0) << log;
  }

  [[nodiscard]] path run_folder() const { return folder_.path() / "fed" / "run"; }
  [[nodiscard]] std::string File(const std::string& name) const {
    return (folder_.path() / "fed" / name).string();
  }

  [[nodiscard]] std::unique_ptr<Process> Aggregator() const {
    return std::make_unique<Process>("weft-aggregator", std::vector{File("run.toml")});
  }
  [[nodiscard]] std::unique_ptr<Process> Client(const std::string& site) const {
    const path data = kExample / "data" / site;
    return std::make_unique<Process>(
        "weft-client",
        std::vector<std::string>{File(site + ".toml"), "--data", (data / "train.jsonl").string(),
                                 "--valid", (data / "valid.jsonl").string(), "--rank",
                                 site == "harbour"    ? "4"
                                 : site == "hospital" ? "8"
                                                      : "16",
                                 "--set", "model.threads=1"});
  }

  /// The adapter's hash after each version, from the ledger.
  [[nodiscard]] std::vector<std::string> Hashes() const {
    std::vector<std::string> hashes;
    PostQueue queue;
    const auto store = FileStore::Open(
        {.folder = run_folder(), .post = queue.Poster(), .wall_us = [] { return int64_t{0}; }});
    if (!store.ok()) return {store.status().message()};
    const Result<std::vector<LedgerEvent>> ledger = (*store)->ReadLedger();
    if (!ledger.ok()) return {ledger.status().message()};
    for (const LedgerEvent& row : *ledger) {
      if (row.kind != RoundPublished::kKind) continue;
      hashes.push_back(FromEvent<RoundPublished>(row).value().adapter_sha256);
    }
    return hashes;
  }

 private:
  ScratchFolder folder_;
};

struct Everybody {
  explicit Everybody(const Federation& federation)
      : aggregator(federation.Aggregator()),
        harbour(federation.Client("harbour")),
        hospital(federation.Client("hospital")),
        weaver(federation.Client("weaver")) {}
  std::unique_ptr<Process> aggregator, harbour, hospital, weaver;

  void ExpectCompleted() {
    EXPECT_EQ(aggregator->Wait(), 0) << aggregator->log();
    for (Process* client : {harbour.get(), hospital.get(), weaver.get()}) {
      EXPECT_EQ(client->Wait(), 0) << client->log();
    }
  }
};

/// What an undisturbed run arrives at; run once.
const std::vector<std::string>& UndisturbedHashes() {
  static const std::vector<std::string> hashes = [] {
    const Federation federation;
    Everybody everybody(federation);
    everybody.ExpectCompleted();
    return federation.Hashes();
  }();
  return hashes;
}

TEST(FederationTest, RunsOverEncryptedLinksAndItsFolderIsWhole) {
  const Federation federation;
  Everybody everybody(federation);
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes().size(), 4U);
  EXPECT_EQ(federation.Hashes(), UndisturbedHashes());
  EXPECT_TRUE(exists(federation.run_folder() / "adapters" / "round-0003" / "adapter_config.json"));
  EXPECT_EQ(RunProgram("weft", {"runs", "verify", federation.run_folder().string()}), 0);
}

TEST(FederationTest, AnAggregatorKilledInARoundEndsWithTheSameAdapter) {
  const Federation federation;
  Everybody everybody(federation);
  ASSERT_TRUE(everybody.aggregator->WaitForLine({"update accepted", "round=2"}))
      << everybody.aggregator->log();
  everybody.aggregator->Signal(SIGKILL);
  EXPECT_EQ(everybody.aggregator->Wait(), -SIGKILL);
  everybody.aggregator = federation.Aggregator();
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), UndisturbedHashes());
  EXPECT_EQ(RunProgram("weft", {"runs", "verify", federation.run_folder().string()}), 0);
}

TEST(FederationTest, AClientKilledInARoundRejoinsAndTheRunCompletes) {
  const Federation federation;
  Everybody everybody(federation);
  ASSERT_TRUE(everybody.weaver->WaitForLine({"trained", "round=1"})) << everybody.weaver->log();
  everybody.weaver->Signal(SIGKILL);
  EXPECT_EQ(everybody.weaver->Wait(), -SIGKILL);
  everybody.weaver = federation.Client("weaver");
  everybody.ExpectCompleted();
  EXPECT_EQ(federation.Hashes().size(), 4U);
}

TEST(FederationTest, SigtermStopsCleanlyAndASecondStartGoesOn) {
  const Federation federation;
  Everybody everybody(federation);
  ASSERT_TRUE(everybody.aggregator->WaitForLine({"round opened", "round=2"}));
  everybody.aggregator->Signal(SIGTERM);
  EXPECT_EQ(everybody.aggregator->Wait(), 4) << everybody.aggregator->log();
  for (Process* client :
       {everybody.harbour.get(), everybody.hospital.get(), everybody.weaver.get()}) {
    EXPECT_EQ(client->Wait(), 4) << client->log();
  }
  Everybody again(federation);
  again.ExpectCompleted();
  EXPECT_EQ(federation.Hashes(), UndisturbedHashes());
}

TEST(FederationTest, TwoAggregatorsOnOneFolderAreOneTooMany) {
  const Federation federation;
  const auto first = federation.Aggregator();
  ASSERT_TRUE(first->WaitForLine({"listening"}));
  std::string log;
  EXPECT_EQ(RunProgram("weft-aggregator", {federation.File("run.toml")}, &log), 1);
  EXPECT_NE(log.find("error:"), std::string::npos) << log;
}

TEST(FederationTest, CheckSaysWhatWouldLeaveTheSiteAndDoesNotJoin) {
  const Federation federation;
  const auto aggregator = federation.Aggregator();
  ASSERT_TRUE(aggregator->WaitForLine({"listening"}));
  const path data = kExample / "data" / "weaver" / "train.jsonl";
  std::string log;
  EXPECT_EQ(RunProgram("weft-client",
                       {federation.File("weaver.toml"), "--data", data.string(), "--check"}, &log),
            0)
      << log;
  aggregator->Signal(SIGTERM);
  EXPECT_EQ(aggregator->Wait(), 4);
  EXPECT_EQ(aggregator->log().find("client joined"), std::string::npos);
}

TEST(FederationTest, AKeyThatIsNotAllowedIsRefusedWithItsExitCode) {
  const Federation federation;
  const Federation other;
  const auto aggregator = federation.Aggregator();
  ASSERT_TRUE(aggregator->WaitForLine({"listening"}));
  const path data = kExample / "data" / "weaver" / "train.jsonl";
  std::string log;
  EXPECT_EQ(RunProgram("weft-client",
                       {federation.File("weaver.toml"), "--data", data.string(), "--key",
                        other.File("weaver.secret")},
                       &log),
            3)
      << log;
}

}  // namespace
}  // namespace weft::testing
