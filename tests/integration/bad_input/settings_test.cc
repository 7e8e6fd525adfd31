// Settings and flags that cannot be meant: unknown keys with the nearest known one, wrong types,
// numbers out of range, devices and types this machine has not.

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

class BadSettingsTest : public ::testing::Test {
 protected:
  [[nodiscard]] std::string file() const { return (temp_.path() / "run.toml").string(); }
  [[nodiscard]] Ran Show(const std::string& toml, const std::vector<std::string>& sets = {},
                         const std::vector<std::string>& environment = {}) const {
    temp_.Write("run.toml", toml);
    std::vector<std::string> arguments = {"config", "show", file()};
    for (const std::string& set : sets) {
      arguments.push_back("--set");
      arguments.push_back(set);
    }
    return Execute("weft", arguments, {.environment = environment});
  }

  TempFolder temp_;
};

TEST_F(BadSettingsTest, AnUnknownKeyIsNamedWithItsLineAndTheNearestKnownOne) {
  const auto refused = [&](const std::string& toml, const std::string& where,
                           const std::string& nearest) {
    EXPECT_TRUE(Refused(Show(toml), {file() + where, "did you mean " + nearest})) << toml;
  };
  refused("[run]\n\nsede = 1\n", ":3: run.sede", "run.seed?");
  refused("[rnu]\nseed = 1\n", ":2: rnu.seed", "run.seed?");
  refused("[train]\nbatch_size = 4\n", ":2: train.batch_size", "train.batch-size?");
  refused("[adapter]\nlr = 1\n", ":2: adapter.lr", "train.lr?");
  refused("[client]\nname = \"a\"\nrnak = 5\n", ":3: client.rnak", "client.rank?");
  EXPECT_TRUE(Refused(Show("seed = 1\n"), {file() + ":1", "outside of a section"}));
  EXPECT_TRUE(Refused(Show("run = 5\n"), {file() + ":1", "wanted a section [run]"}));
}

TEST_F(BadSettingsTest, WrongTypesAndRangesSayWhatWasGivenAndWanted) {
  const auto refused = [&](const std::string& section, const std::string& line,
                           const std::string& got, const std::string& wanted) {
    EXPECT_TRUE(Refused(Show("[" + section + "]\n" + line + "\n"),
                        {file() + ":2: " + section + ".", "got " + got, "wanted " + wanted}))
        << line;
  };
  refused("run", "seed = -1", "-1", "integer from 0");
  refused("run", "seed = 1.5", "1.5", "integer");
  refused("run", "name = 5", "5", "a name");
  refused("run", "name = \"a/b\"", "\"a/b\"", "a name");
  EXPECT_TRUE(Refused(Show("[run]\nname = \"\"\n"), {"run.name", "wanted a name"}));
  refused("run", "num-server-rounds = -1", "-1", "integer from 0");
  refused("train", "lr = nan", "nan", "number above 0");
  refused("train", "lr = 0", "0", "number above 0");
  refused("train", "lr = \"fast\"", "\"fast\"", "number above 0");
  refused("train", "batch-size = 0", "0", "integer from 1");
  refused("train", "batch-size = true", "true", "integer");
  refused("train", "local-steps = -1", "-1", "integer from 0");
  refused("train", "dtype = \"float16\"", "\"float16\"", "one of float32, bfloat16");
  refused("adapter", "rank = 0", "0", "integer from 1 to 65536");
  refused("adapter", "alpha = 0", "0", "number above 0");
  refused("adapter", "target-modules = 5", "5", "list of module names");
  refused("adapter", "rank-pattern = {q_proj = 0}", "{q_proj = 0}", "table pattern = integer");
  refused("sim", "ranks = [4, 0]", "[4, 0]", "list of integers from 1");
  refused("cohort", "fraction-train = 2", "2", "number from 0 to 1");
  refused("cohort", "min-train-nodes = 0", "0", "integer from 1");
  refused("server", "bind = \"inproc://x\"", "\"inproc://x\"", "tcp://HOST:PORT");
  refused("server", "bind = \"tcp://host:99999\"", "\"tcp://host:99999\"", "tcp://HOST:PORT");
  refused("model", "device = \"tpu\"", "\"tpu\"", "auto, cpu, cuda or cuda:N");
  refused("model", "chat-template = \"vicuna\"", "\"vicuna\"", "one of");
  refused("sim", "partition = \"fair\"", "\"fair\"", "one of iid");
  refused("client", "rank = 0", "0", "integer from 1 to 65536, or one of auto");
  refused("client", "rank = \"many\"", "\"many\"", "integer from 1 to 65536, or one of auto");
}

TEST_F(BadSettingsTest, EveryChatTemplateThereIsCanBeConfigured) {
  for (const char* name : {"chatml", "llama2", "llama3", "mistral", "qwen3", "smollm2"}) {
    EXPECT_TRUE(Succeeded(Show("[model]\nchat-template = \"" + std::string(name) + "\"\n")));
    EXPECT_TRUE(
        Succeeded(Execute("weft", {"eval", "--model", kTinyModel.string(), "--data", kTinyRows,
                                   "--max-rows", "1", "--chat-template", name})));
  }
}

TEST_F(BadSettingsTest, WhatIsNoTomlIsRefusedByLine) {
  for (const std::string& toml :
       {std::string("[run\n"), std::string("[run]\nseed =\n"),
        std::string("[run]\nseed=1\nseed=2\n"), std::string("[run]\nx = 2024-01-01\n"),
        std::string("\xFF"), std::string("\0\0", 2), "x=" + std::string(100000, '['),
        std::string("[run]\nseed=99999999999999999999\n")}) {
    EXPECT_TRUE(Refused(Show(toml), {file() + ":"})) << toml.substr(0, 40);
  }
  EXPECT_TRUE(Refused(Execute("weft", {"config", "show", "/no/such.toml"}), {"/no/such.toml"}));
  EXPECT_TRUE(Refused(Execute("weft", {"config", "show", "/tmp"}), {"/tmp", "TOML file"}));
}

TEST_F(BadSettingsTest, SettingsThatContradictEachOtherAreNamedTogether) {
  EXPECT_TRUE(Refused(Show("[server]\nheartbeat-s = 5\ngone-after-s = 5\n"),
                      {"server.gone-after-s", "server.heartbeat-s"}));
  EXPECT_TRUE(Refused(Show("[[client]]\nname = \"a\"\n[[client]]\nname = \"a\"\n"),
                      {"two clients are named a"}));
  EXPECT_TRUE(Refused(Show("[[client]]\nname = \"a\"\n[[client]]\nrank = 4\n"),
                      {"client number 2 has no name"}));
  EXPECT_TRUE(Refused(Show("[sim]\nclients = 2\npartition = \"field\"\n"), {"needs sim.field"}));
}

TEST_F(BadSettingsTest, ARuleThatCannotMergeWhatSitesTrainIsRefusedBeforeTheRun) {
  const auto refused = [&](const std::string& toml, const std::vector<std::string>& words) {
    temp_.Write("run.toml", toml);
    EXPECT_TRUE(Refused(Execute("weft-sim", {file(), "--model", kTinyModel.string(), "--data",
                                             kTinyRows, "--clients", "2"}),
                        words))
        << toml;
  };
  const std::string native = "[strategy]\nname = \"native\"\n[adapter]\nrank = 8\n";
  refused(native + "method = \"msplora\"\n[sim]\nranks = [8, 4]\n",
          {"[sim] rank 4", "native merges one rank only"});
  refused(native + "method = \"msplora\"\n[[client]]\nname = \"a\"\nrank = 2\n",
          {"[client] a: rank 2"});
  refused(native + "method = \"nola\"\n", {"nola.rounds"});
  refused(native + "method = \"roselora\"\n", {"roselora", "use exact-svd or flora"});
  refused("[laplace]\nfit = true\n", {"[laplace] fit", "adapter.labels"});
}

TEST_F(BadSettingsTest, ABadSetSaysWhichAndWhatIsWanted) {
  const auto refused = [&](const std::string& set, const std::string& why) {
    EXPECT_TRUE(Refused(Show("[client]\nname = \"a\"\n", {set}), {"--set " + set, why})) << set;
  };
  for (const char* set : {"run.seed", "run=5", "=5", ".seed=5", "run.=5", ""}) {
    refused(set, "wanted section.key=value");
  }
  refused("run.sede=5", "did you mean run.seed?");
  refused("foo.bar=5", "no such section");
  refused("run.seed=abc", "wanted integer");
  refused("train.lr=nan", "wanted number above 0");
  refused("train.lr=1e999", "wanted number above 0");
  refused("adapter.rank=0", "wanted integer from 1");
  refused("client.b.rank=5", "did you mean a?");
  refused("client.a.rnak=5", "did you mean client.rank?");
  EXPECT_TRUE(Refused(Show("", {"model.threads=1\nfoo=2"}), {"model.threads", "wanted integer"}));
  EXPECT_TRUE(Refused(Show("", {}, {"WEFT_TRAIN_LR=x"}), {"environment WEFT_TRAIN_LR", "number"}));
  EXPECT_TRUE(Refused(Show("", {}, {"WEFT_TRAIN_LRR=1"}), {"WEFT_TRAIN_LRR", "train.lr?"}));
  EXPECT_TRUE(Succeeded(Show("", {}, {"WEFT_NO_SUCH_THING=1"})));
}

TEST_F(BadSettingsTest, TheDaemonsAndTheSimulatorRefuseTheSameWay) {
  temp_.Write("run.toml", "[run]\nsede = 1\n");
  for (const char* program : {"weft-aggregator", "weft-client", "weft-sim"}) {
    EXPECT_TRUE(Refused(Execute(program, {file()}), {file() + ":2", "run.seed"})) << program;
    EXPECT_TRUE(Refused(Execute(program, {"/no/such.toml"}), {"/no/such.toml"})) << program;
    EXPECT_TRUE(Refused(Execute(program, {"--frobnicate"}), {"--help"}, 2)) << program;
    // The file is not taken for another --set.
    EXPECT_TRUE(Refused(Execute(program, {"--set", "run.seed=2", file()}), {"run.seed?"}))
        << program;
  }
}

TEST_F(BadSettingsTest, AClientsFlagsAreCheckedLikeItsFile) {
  temp_.Write("run.toml", "[client]\nname = \"a\"\n");
  const auto refused = [&](const char* flag, const char* value, const std::string& why) {
    EXPECT_TRUE(Refused(Execute("weft-client", {file(), flag, value}), {flag, value, why}));
  };
  refused("--rank", "many", "wanted integer from 1 to 65536, or one of auto");
  refused("--rank", "0", "wanted integer from 1");
  refused("--device", "tpu", "wanted auto, cpu");
  refused("--server", "inproc://x", "wanted tcp://HOST:PORT");
  refused("--server", "tcp://host:99999", "wanted tcp://HOST:PORT");
  refused("--link-mbps", "nan", "wanted a number above 0");
  refused("--name", "b", "wanted one of a");
  EXPECT_TRUE(Refused(Execute("weft-client", {"--name", "a/b"}), {"--name a/b", "wanted a name"}));
  EXPECT_TRUE(Refused(Execute("weft-client", {}), {"wanted --name or a [client] table"}));
}

// ---- flags of the commands that compute ----

Ran Train(const std::vector<std::string>& more, const std::string& out) {
  std::vector<std::string> arguments = {
      "train", "--model", kTinyModel.string(), "--data", kTinyRows, "--out", out, "--threads", "1"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return Execute("weft", arguments);
}

struct FlagCase {
  std::vector<std::string> flags;
  std::vector<std::string> words;
  int code = 1;
};

TEST_F(BadSettingsTest, NonsenseNumbersOfTrainAreRefusedAndNothingIsWritten) {
  const std::string out = (temp_.path() / "out").string();
  const std::vector<FlagCase> cases = {
      {{"--batch", "0"}, {"batch_size is 0", "1 to"}},
      {{"--batch", "-1"}, {"batch_size is -1"}},
      {{"--batch", "99999999999999999999"}, {"batch_size is", "1 to 1048576"}},
      {{"--batch", "x"}, {"--batch = x"}, 2},
      {{"--steps", "-1"}, {"local_steps is -1"}},
      {{"--steps", "9223372036854775807"}, {"local_steps is"}},
      {{"--epochs", "0"}, {"local_epochs is 0"}},
      {{"--epochs", "9223372036854775807"}, {"local_epochs is"}},
      {{"--micro-batch", "99"}, {"micro_batch_size is 99", "0 to batch_size, 8"}},
      {{"--max-len", "-1"}, {"max_len is -1"}},
      {{"--warmup", "-1"}, {"warmup_steps is -1"}},
      {{"--lr", "nan"}, {"lr is nan"}},
      {{"--lr", "inf"}, {"lr is inf"}},
      {{"--lr", "-1"}, {"lr is -1"}},
      {{"--weight-decay", "nan"}, {"weight_decay is nan"}},
      {{"--grad-clip", "-1"}, {"grad_clip is -1"}},
      {{"--dropout", "1"}, {"dropout is 1"}},
      {{"--rank", "0"}, {"rank is 0, wanted 1 to 65536"}},
      {{"--rank", "-4"}, {"rank is -4"}},
      {{"--alpha", "nan"}, {"alpha is nan"}},
      {{"--alpha", "0"}, {"alpha is 0"}},
      {{"--seed", "-1"}, {"--seed"}, 2},
      {{"--max-rows", "-1"}, {"--max-rows"}, 2},
      {{"--threads", "-1"}, {"--threads", "0 to 1024"}, 2},
      {{"--schedule", "steep"}, {"schedule is steep", "constant, linear or cosine"}},
      {{"--objective", "win"}, {"\"win\"", "sft, fedprox"}},
      {{"--dtype", "int8"}, {"[dtype] got \"int8\"", "float32 or bfloat16"}},
      {{"--device", "tpu"}, {"[device] got \"tpu\"", "cpu, cuda"}},
      {{"--device", "cuda:7"}, {"[device] got \"cuda:7\"", "CUDA devices"}},
      {{"--target-modules", "query"}, {"\"query\" matches no linear layer", "q_proj"}},
      {{"--target-regex", "nope"}, {"\"nope\" matches no linear layer", "q_proj"}},
      {{"--target-regex", "("}, {"regular expression \"(\""}},
      {{"--full", "--rank", "4"}, {"--full", "--rank"}, 2},
      {{"--full", "--adapter-init", "x"}, {"--full", "--adapter-init"}, 2},
      {{"--adapter-init", "x", "--rank", "4"}, {"--adapter-init", "--rank"}, 2},
      {{"--init-seed", "4"}, {"--init-seed", "--full"}, 2},
      {{"--batches", "x"}, {"one of --data and --batches"}},
      {{"--frobnicate"}, {"--frobnicate", "weft train --help"}, 2},
  };
  for (const FlagCase& one : cases) {
    EXPECT_TRUE(Refused(Train(one.flags, out), one.words, one.code));
    EXPECT_FALSE(std::filesystem::exists(out + "/adapter_config.json"));
  }
}

TEST_F(BadSettingsTest, ARankAboveALayersSizeIsCappedWithANotice) {
  const std::string out = (temp_.path() / "out").string();
  const Ran ran = Train({"--rank", "200", "--steps", "1"}, out);
  ASSERT_TRUE(Succeeded(ran));
  EXPECT_NE(ran.err.find("notice: the rank of 28 layers is capped at min(in, out)"),
            std::string::npos)
      << ran.err;
  const Ran inspect = Execute("weft", {"adapter", "inspect", out, "--json"});
  ASSERT_TRUE(Succeeded(inspect));
  const auto json = nlohmann::json::parse(inspect.out);
  EXPECT_EQ(json["rank"], 200);
  for (const auto& site : json["sites"]) {
    EXPECT_EQ(site["rank"], std::min<int64_t>({200, site["in"], site["out"]})) << site;
  }
}

TEST_F(BadSettingsTest, AnOutputThatCannotBeWrittenIsToldBeforeTheWork) {
  const std::string file = temp_.Write("file", "x").string();
  for (const std::string& out : {std::string("/proc/weft"), file, file + "/below", std::string()}) {
    const Ran ran = Train({"--steps", "1"}, out);
    EXPECT_TRUE(Refused(ran, {"[out]"})) << out;
    EXPECT_EQ(ran.err.find("step 1/1"), std::string::npos) << ran.err;
  }
  EXPECT_TRUE(
      Refused(Train({"--steps", "1", "--full"}, kTinyModel.string()), {"base model's own folder"}));
}

TEST_F(BadSettingsTest, OtherCommandsRefuseNonsenseToo) {
  const std::string model = kTinyModel.string();
  const std::vector<FlagCase> cases = {
      {{"generate", "--model", model, "--prompt", "x", "--temperature", "nan"}, {"temperature"}},
      {{"generate", "--model", model, "--prompt", "x", "--temperature", "-1"}, {"temperature"}},
      {{"generate", "--model", model, "--prompt", "x", "--top-p", "2"}, {"top-p: got 2"}},
      {{"generate", "--model", model, "--prompt", "x", "--max-new-tokens", "-1"}, {"--max-new"}, 2},
      {{"eval", "--model", model, "--data", kTinyRows, "--batch", "0"}, {"--batch"}, 2},
      {{"eval", "--model", model, "--data", kTinyRows, "--max-len", "300"}, {"context is 256"}},
      {{"eval", "--model", model, "--data", kTinyRows, "--dtype", "x"}, {"[dtype] got \"x\""}},
      {{"bench", "train", "--model", model, "--data", kTinyRows, "--steps", "0"}, {"--steps"}, 2},
      {{"bench", "train", "--model", model, "--data", kTinyRows, "--steps", "999"},
       {kTinyRows, "rows with a label"}},
      {{"bench", "merge", "--dim", "0", "5"}, {"--dim"}, 2},
      {{"bench", "merge", "--strategy", "vote"}, {"vote", "fedavg"}},
      {{"bench", "round", "--clients", "0"}, {"--clients"}, 2},
      {{"bench", "round", "--payload-mb", "nan"}, {"--payload-mb", "nan"}},
      {{"bench", "round", "--dir", "/no/such"}, {"/no/such"}},
      {{"frobnicate"}, {"no command \"frobnicate\"", "train", "eval"}, 2},
      {{"runs", "frobnicate"}, {"no command \"frobnicate\"", "list", "verify"}, 2},
      {{}, {"wanted a command"}, 2},
      {{"eval"}, {"weft eval: error", "--model is required"}, 2},
  };
  for (const FlagCase& one : cases)
    EXPECT_TRUE(Refused(Execute("weft", one.flags), one.words, one.code));
}

}  // namespace
}  // namespace weft::testing
