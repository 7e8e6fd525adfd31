// `weft init`, `weft keys` and the start of an aggregator with what cannot be meant: refused before
// anything is written or bound, so that the corrected command works on the same folder.

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

class BadInitTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string In(const std::string& name) const {
    return (temp_.path() / name).string();
  }
  [[nodiscard]] Ran Init(const std::vector<std::string>& more,
                         const std::string& sites = "alpha,beta") const {
    std::vector<std::string> arguments = {
        "init", "--model", kTinyModel.string(), "--out", In("fed"), "--sites", sites};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Execute("weft", arguments);
  }

  TempFolder temp_;
};

TEST_F(BadInitTest, NonsenseIsRefusedAndLeavesNothingBehind) {
  struct Case {
    std::vector<std::string> flags;
    std::string sites;
    std::vector<std::string> words;
  };
  const std::vector<Case> cases = {
      {{"--rank", "many"}, "a", {"--rank many", "wanted integer from 1 to 65536, or one of auto"}},
      {{"--rank", "0"}, "a", {"--rank 0", "wanted integer from 1"}},
      {{"--server", "host:5"}, "a", {"--server host:5", "tcp://HOST:PORT"}},
      {{"--server", "tcp://host"}, "a", {"--server", "tcp://HOST:PORT"}},
      {{"--server", "tcp://host:99999"}, "a", {"--server", "tcp://HOST:PORT"}},
      {{"--server", "tcp://*:7711"}, "a", {"--server", "reach the server"}},
      {{"--set", "adapter.rank=0"}, "a", {"adapter.rank", "wanted integer from 1"}},
      {{"--set", "strategy.name=vote"}, "a", {"\"vote\"", "fedavg"}},
      {{"--set", "wire.codec=zip"}, "a", {"zip", "float32"}},
      {{"--set", "train.objective=win"}, "a", {"\"win\"", "sft"}},
      {{"--set", "adapter.method=magic"}, "a", {"magic", "lora"}},
      {{"--set", "train.micro-batch-size=99"}, "a", {"micro_batch_size is 99"}},
      {{"--config", "/no/such.toml"}, "a", {"/no/such.toml"}},
      {{}, "a,a", {"\"a\" is named twice"}},
      {{}, "server", {"\"server\"", "server's own file"}},
      {{}, "a/b", {"site name \"a/b\"", "letters, digits"}},
      {{}, "aggregator", {"aggregator's own"}}};
  for (const Case& one : cases) {
    EXPECT_TRUE(Refused(Init(one.flags, one.sites), one.words));
    EXPECT_FALSE(std::filesystem::exists(In("fed"))) << one.sites;
  }
  EXPECT_TRUE(
      Refused(Execute("weft", {"init", "--model", "/no/such", "--sites", "a", "--out", In("fed")}),
              {"/no/such", "is no folder"}));
  EXPECT_FALSE(std::filesystem::exists(In("fed")));
  EXPECT_TRUE(Succeeded(Init({})));
  EXPECT_TRUE(Refused(Init({}), {In("fed"), "holds a federation already"}));
}

TEST_F(BadInitTest, WhatItWritesWithoutASettingIsARunThatStarts) {
  ASSERT_TRUE(
      Succeeded(Init({"--set", "cohort.join-deadline-s=0.5", "--server", "tcp://127.0.0.1:1"})));
  // Nobody joins, which is the first thing that can go wrong.
  EXPECT_TRUE(Refused(
      Execute("weft-aggregator", {In("fed/run.toml"), "--set", "server.bind=tcp://127.0.0.1:*"}),
      {"[join]", "missing: alpha, beta"}));
}

TEST_F(BadInitTest, AnAggregatorRefusesARunThatCouldOnlyFailLater) {
  ASSERT_TRUE(Succeeded(Init({"--server", "tcp://127.0.0.1:1"})));
  const auto refused = [&](const std::string& set, const std::vector<std::string>& words) {
    EXPECT_TRUE(Refused(Execute("weft-aggregator", {In("fed/run.toml"), "--set", set, "--set",
                                                    "server.bind=tcp://127.0.0.1:*"}),
                        words))
        << set;
  };
  refused("strategy.name=vote", {"\"vote\" is unknown", "exact-svd"});
  refused("strategy.slots=some", {"strategy.slots", "\"some\""});
  refused("wire.codec=zip", {"zip", "float32"});
  refused("adapter.method=magic", {"magic", "lora"});
  refused("train.objective=win", {"\"win\""});
  refused("adapter.options={a=1}", {"no option \"a\""});
  refused("adapter.target-modules=query", {"\"query\" matches no linear layer", "q_proj"});
  refused("adapter.target-modules=lm_head", {"lm_head", "not trained"});
  refused("model.base=/no/such", {"/no/such"});
  refused("server.secret-key=/no/such.secret", {"/no/such.secret", "weft keys new"});
  refused("server.allow-list=/no/such", {"/no/such"});
  refused("evaluate.data=/no/such", {"/no/such"});
  refused("run.dir=/proc/weft", {"/proc/weft"});
  temp_.Write("fed/base.json", "{\"hash\":\"x\"}");
  refused("run.seed=1", {In("fed/base.json"), "hash"});
}

TEST_F(BadInitTest, KeysThatAreNoneAreRefusedAndNothingIsOverwritten) {
  const auto keys = [](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "keys");
    return Execute("weft", arguments);
  };
  ASSERT_TRUE(Succeeded(keys({"new", "--out", In("site")})));
  const std::string list = In("allow.txt");
  EXPECT_TRUE(Refused(keys({"new", "--out", In("site")}), {"never overwritten"}));
  EXPECT_TRUE(Refused(keys({"new", "--out", ""}), {"wanted DIR/NAME"}));
  EXPECT_TRUE(Refused(keys({"new", "--out", "/proc/weft"}), {"/proc/weft"}));
  EXPECT_TRUE(Refused(keys({"show", "/no/such.secret"}), {"weft keys new --out /no/such"}));
  EXPECT_TRUE(
      Refused(keys({"show", (kTinyModel / "config.json").string()}), {"config.json", "40 in Z85"}));
  EXPECT_TRUE(Refused(keys({"allow", "junk", "alpha", "-f", list}), {"\"junk\""}));
  EXPECT_TRUE(Refused(keys({"allow", In("site.public"), "a/b", "-f", list}), {"\"a/b\""}));
  EXPECT_FALSE(std::filesystem::exists(list));
  ASSERT_TRUE(Succeeded(keys({"allow", In("site.public"), "alpha", "-f", list})));
  EXPECT_TRUE(Refused(keys({"allow", In("site.public"), "beta", "-f", list}),
                      {list, "already site alpha's"}));
  EXPECT_TRUE(Refused(keys({"revoke", "gamma", "-f", list}), {list, "\"gamma\""}));
  EXPECT_TRUE(Refused(keys({"list", "-f", "/no/such"}), {"/no/such"}));
  temp_.Write("allow.txt", "nonsense here\n");
  EXPECT_TRUE(Refused(keys({"list", "-f", list}), {list + ":1", "no public key"}));
}

}  // namespace
}  // namespace weft::testing
