// `weft runs diff` on ledgers that differ in one thing each; and `verify`'s new numbers.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "cli/run_diff.h"
#include "cli/set_up.h"
#include "common/runtime/file_store.h"
#include "tests/support/post_queue.h"
#include "tests/support/run_samples.h"
#include "tests/unit/cli/execute.h"

namespace weft::cli {
namespace {

using namespace weft::testing;  // the samples
using Json = nlohmann::json;

constexpr const char* kSettings = R"([run]
name = "demo"
seed = 7

[strategy]
name = "exact-svd"
energy = 0.5

[[client]]
name = "harbour"
rank = 4
)";

std::vector<RunEvent> Recorded() {
  std::vector<RunEvent> events = SampleRun();
  std::get<RunStarted>(events[0]).settings_toml = kSettings;
  return events;
}

class RunsDiffTest : public ::testing::Test {
 protected:
  std::string Write(const std::string& name, const std::vector<RunEvent>& events) {
    const std::filesystem::path folder = scratch_.path() / name;
    auto store = FileStore::Open({.folder = folder, .post = loop_.Poster(), .wall_us = [this] {
                                    return wall_us_ += 1'000'000;
                                  }});
    EXPECT_TRUE(store.ok()) << store.status();
    for (const RunEvent& event : events) {
      EXPECT_TRUE(loop_.Await([&](Done done) { (*store)->Append({ToDraft(event)}, done); }).ok());
    }
    return folder.string();
  }
  Json Diff(const std::string& a, const std::string& b) {
    const Outcome outcome = Execute(SetUpRunsDiff, {a, b, "--json"});
    EXPECT_TRUE(outcome.status.ok()) << outcome.status;
    return Json::parse(outcome.out, nullptr, false);
  }
  Json DiffTo(const std::vector<RunEvent>& other) {
    return Diff(Write("a", Recorded()), Write("b", other));
  }

  ScratchFolder scratch_;
  PostQueue loop_;
  int64_t wall_us_ = 1'700'000'000'000'000;
};

TEST_F(RunsDiffTest, ARunDoesNotDifferFromItself) {
  const std::string folder = Write("a", Recorded());
  const Json json = Diff(folder, folder);
  EXPECT_EQ(json["first_different_round"], nullptr);
  EXPECT_TRUE(json["settings"].empty());
  ASSERT_EQ(json["rounds"].size(), 2u);
  for (const Json& round : json["rounds"]) {
    EXPECT_EQ(round["in"], "both");
    EXPECT_EQ(round["adapter_equal"], true);
    EXPECT_TRUE(round["certificate"].empty());
    EXPECT_TRUE(round["clients"].empty());
  }
  const Outcome text = Execute(SetUpRunsDiff, {folder, folder});
  EXPECT_NE(text.out.find("adapters are equal in all 2 versions"), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find("→"), std::string::npos) << text.out;
  EXPECT_EQ(text.out.find("SETTING"), std::string::npos) << text.out;
}

TEST_F(RunsDiffTest, SettingsAreNamedWithBothValues) {
  std::vector<RunEvent> other = Recorded();
  auto& started = std::get<RunStarted>(other[0]);
  started.settings_toml = R"([run]
name = "demo"
seed = 8
[strategy]
name = "exact-svd"
energy = 0.5
split = ["left", {x = 1.5, y = true}]
[[client]]
name = "harbour"
rank = "auto"
)";
  started.base_hash = "other";
  const Json settings = DiffTo(other)["settings"];
  ASSERT_EQ(settings.size(), 4u) << settings;
  EXPECT_EQ(settings[0], (Json{{"key", "run.seed"}, {"a", "7"}, {"b", "8"}}));
  EXPECT_EQ(settings[1]["key"], "client.harbour.rank");
  EXPECT_EQ(settings[1]["b"], "\"auto\"");
  EXPECT_EQ(settings[2]["key"], "strategy.split");
  EXPECT_EQ(settings[2]["a"], "none");
  EXPECT_EQ(settings[2]["b"], "[\"left\", {x = 1.5, y = true}]");
  EXPECT_EQ(settings[3]["key"], "(base model)");
}

TEST_F(RunsDiffTest, TheFirstRoundWhoseAdaptersDifferIsNamedWithItsNumbers) {
  std::vector<RunEvent> other = Recorded();
  auto& published = std::get<RoundPublished>(other[16]);
  published.adapter_sha256 = std::string(64, 'c');
  published.certificate.error_published = 2e-9;
  published.certificate.sites = {{.path = "q", .rank = 4}};
  published.certificate.client_norms = {{"harbour", 2}};
  std::get<ServerEvaluated>(other[19]).loss = 1.7;
  std::get<ServerEvaluated>(other[19]).metrics = {{"accuracy", 0.5}};
  const Json json = DiffTo(other);
  EXPECT_EQ(json["first_different_round"], 1);
  const Json& round = json["rounds"][1];
  EXPECT_EQ(round["adapter_equal"], false);
  EXPECT_EQ(round["a"]["server_loss"], 1.8);
  EXPECT_EQ(round["b"]["server_loss"], 1.7);
  EXPECT_EQ(round["certificate"][0],
            (Json{{"site", ""}, {"field", "error_published"}, {"a", 1e-9}, {"b", 2e-9}}));
  EXPECT_EQ(round["certificate"][1]["a"], nullptr) << round["certificate"];
  EXPECT_EQ(round["certificate"][1]["site"], "q");
  EXPECT_EQ(json["rounds"][0]["adapter_equal"], true);

  const Outcome text = Execute(SetUpRunsDiff, {Write("c", Recorded()), Write("d", other)});
  EXPECT_NE(text.out.find("adapters differ first in round 1"), std::string::npos) << text.out;
  for (const char* cell : {"1.8 → 1.7", "- → 0.5", "1e-09 → 2e-09", "accuracy"}) {
    EXPECT_NE(text.out.find(cell), std::string::npos) << cell << "\n" << text.out;
  }
}

TEST_F(RunsDiffTest, ClientsThatAreMissingOrRefusedAreShownAndNormsWhereAsked) {
  std::vector<RunEvent> other = Recorded();
  other[14] = UpdateRefused{
      .round = {1}, .client = {"harbour"}, .code = "data-loss", .reason = "values are NaN"};
  std::get<UpdateAccepted>(other[15]).update_norm = 9;
  std::get<UpdateAccepted>(other[15]).admit_s = 77;
  const std::string a = Write("a", Recorded());
  const std::string b = Write("b", other);
  const Json json = Diff(a, b);
  const Json& clients = json["rounds"][1]["clients"];
  ASSERT_EQ(clients.size(), 2u) << clients;
  EXPECT_EQ(clients[0]["client"], "harbour");
  EXPECT_EQ(clients[0]["a"]["state"], "accepted");
  EXPECT_EQ(clients[0]["b"]["state"], "refused");
  EXPECT_EQ(clients[1]["client"], "weaver");
  EXPECT_EQ(clients[1]["a"], (Json{{"update_norm", 1.5}})) << "seconds are no difference";
  EXPECT_EQ(clients[1]["b"], (Json{{"update_norm", 9}}));

  const Outcome few = Execute(SetUpRunsDiff, {a, b});
  EXPECT_NE(few.out.find("harbour\tboth\taccepted → refused"), std::string::npos) << few.out;
  EXPECT_NE(few.out.find("data-loss: values are NaN"), std::string::npos);
  EXPECT_EQ(few.out.find("1.5 → 9"), std::string::npos) << few.out;
  const Outcome all = Execute(SetUpRunsDiff, {a, b, "--clients"});
  EXPECT_NE(all.out.find("1.5 → 9"), std::string::npos) << all.out;

  std::vector<RunEvent> without = Recorded();
  for (const size_t opened : {11U, 5U}) {
    std::get<RoundOpened>(without[opened]).plan.cohort.pop_back();
  }
  for (const int event : {18, 15, 13, 7}) without.erase(without.begin() + event);
  const std::string c = Write("c", without);
  const Json missing = Diff(c, a)["rounds"][1]["clients"];
  ASSERT_EQ(missing.size(), 1u) << missing;
  EXPECT_EQ(missing[0]["client"], "weaver");
  EXPECT_EQ(missing[0]["a"], nullptr);
  EXPECT_EQ(missing[0]["b"]["state"], "accepted");
  EXPECT_NE(Execute(SetUpRunsDiff, {c, a}).out.find("weaver\tonly B\taccepted"), std::string::npos);
}

TEST_F(RunsDiffTest, RoundsThatOnlyOneOfThemHasAreSaidToBeItsOwn) {
  std::vector<RunEvent> shorter = Recorded();
  shorter.resize(5);
  const std::string a = Write("a", Recorded());
  const std::string b = Write("b", shorter);
  const Json json = Diff(a, b);
  EXPECT_EQ(json["first_different_round"], nullptr);
  EXPECT_EQ(json["rounds"][1]["in"], "a");
  EXPECT_EQ(json["rounds"][1]["b"], nullptr);
  EXPECT_EQ(json["rounds"][1]["adapter_equal"], nullptr);
  EXPECT_EQ(Diff(b, a)["rounds"][1]["in"], "b");
  const Outcome text = Execute(SetUpRunsDiff, {a, b});
  EXPECT_NE(text.out.find("\n1\tonly A\tpublished"), std::string::npos) << text.out;
  EXPECT_NE(text.out.find("equal in all 1 versions"), std::string::npos) << text.out;
}

TEST_F(RunsDiffTest, RunsWithoutRecordedSettingsAreComparedAllTheSame) {
  const std::string old = Write("a", SampleRun());
  const Json json = Diff(old, Write("b", Recorded()));
  EXPECT_EQ(json["settings"][0], (Json{{"key", "run.name"}, {"a", "none"}, {"b", "\"demo\""}}));
  EXPECT_EQ(json["rounds"][1]["adapter_equal"], true);
}

TEST_F(RunsDiffTest, WhatIsNoRunIsRefusedWhicheverSideItStandsOn) {
  const std::string run = Write("a", Recorded());
  const std::string nothing = Write("empty", {});
  const std::string client = Write("client", {MemberGone{.client = {"x"}, .reason = "y"}});
  for (const std::string& bad : {nothing, client, std::string("/no/such")}) {
    for (const auto& pair : {std::vector{run, bad}, std::vector{bad, run}}) {
      const Outcome outcome = Execute(SetUpRunsDiff, pair);
      EXPECT_FALSE(outcome.status.ok());
      EXPECT_NE(outcome.status.message().find(bad), std::string::npos) << outcome.status;
      EXPECT_NE(outcome.status.message().find("name a run folder"), std::string::npos)
          << outcome.status;
      EXPECT_EQ(outcome.out, "");
    }
  }
  std::vector<RunEvent> broken = Recorded();
  std::get<RunStarted>(broken[0]).settings_toml = "[run\n";
  const Outcome outcome = Execute(SetUpRunsDiff, {run, Write("broken", broken)});
  EXPECT_EQ(outcome.status.code(), Code::kDataLoss);
  EXPECT_NE(outcome.status.message().find("broken: the settings"), std::string::npos)
      << outcome.status;
}

}  // namespace
}  // namespace weft::cli
