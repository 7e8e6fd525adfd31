// adapter_config.json over all that it can say: written and read again nothing changes, and what is
// written is what PEFT itself would write.

#include "common/adapters/peft_config.h"

#include <set>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/adapters/match.h"
#include "common/base/random.h"

namespace weft {
namespace {

using nlohmann::json;

json Minimal() {
  return {{"peft_type", "LORA"}, {"r", 4}, {"lora_alpha", 8}, {"target_modules", {"q_proj"}}};
}

PeftConfig Read(const json& config) {
  const Result<PeftConfig> read = ParsePeftConfig(config.dump(), "adapter_config.json");
  EXPECT_TRUE(read.ok()) << read.status();
  return read.ok() ? *read : PeftConfig{};
}

// ---- anything plain LoRA can say ----

class Draw {
 public:
  explicit Draw(uint64_t seed) : stream_(RandomStream::Derive(seed, {"peft-config"})) {}

  PeftConfig Config() {
    PeftConfig config;
    AdapterSpec& spec = config.spec;
    spec.rank = 1 + static_cast<int64_t>(stream_.Below(256));
    spec.alpha = Coin() ? static_cast<double>(1 + stream_.Below(64)) : 10 * stream_.Uniform() + 0.1;
    spec.dropout = Coin() ? 0 : stream_.Uniform();
    spec.rslora = Coin();
    Targets(spec);
    if (Coin()) spec.modules_to_save = Names();
    for (const std::string& name : Names()) {
      spec.rank_pattern.emplace_back(name, 1 + static_cast<int64_t>(stream_.Below(64)));
    }
    for (const std::string& name : Names()) {
      spec.alpha_pattern.emplace_back(name, 0.5 * static_cast<double>(1 + stream_.Below(64)));
    }
    config.base_model = Coin() ? "" : Text();
    config.task_type = Coin() ? "CAUSAL_LM" : "";
    config.fan_in_fan_out = Coin();
    return config;
  }

 private:
  void Targets(AdapterSpec& spec) {
    switch (stream_.Below(3)) {
      case 0:
        spec.target_modules = {"all-linear"};
        break;
      case 1:
        spec.target_regex = R"(.*\.(q|v)_proj)";
        break;
      default:
        spec.target_modules = Names();
        if (spec.target_modules.empty()) spec.target_modules = {"up"};
    }
    if (Coin()) {
      spec.exclude_modules = Names();
    } else if (Coin()) {
      spec.options.emplace_back(kExcludeRegexOption, R"(.*layers\.[01]\..*)");
    }
    if (spec.target_regex.empty() && Coin()) {
      for (uint64_t i = 0; i < 1 + stream_.Below(4); ++i) {
        spec.layers_to_transform.push_back(static_cast<int64_t>(stream_.Below(100)));
      }
      if (Coin()) spec.layers_pattern = Coin() ? "layers" : "h,blocks,layers";
    }
  }
  bool Coin() { return stream_.Below(2) == 0; }
  std::string Text() {
    const char* const parts[] = {"q_proj", "lm_head", "größe", "a\"b", "C:\\x", "tab\tbed", "日本"};
    return parts[stream_.Below(7)] + std::to_string(stream_.Below(1000));
  }
  // Up to four names, none twice: PEFT's file is an object.
  std::vector<std::string> Names() {
    std::set<std::string> seen;
    std::vector<std::string> names;
    for (uint64_t i = stream_.Below(5); i > 0; --i) {
      std::string name = Text();
      if (seen.insert(name).second) names.push_back(std::move(name));
    }
    return names;
  }

  RandomStream stream_;
};

TEST(PeftConfigTest, WhateverPlainLoraSaysIsReadBackAsItWasWritten) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const PeftConfig config = Draw(seed).Config();
    const std::string text = PeftConfigText(config);
    const Result<PeftConfig> read = ParsePeftConfig(text, "x");
    ASSERT_TRUE(read.ok()) << "seed " << seed << ": " << read.status() << text;
    EXPECT_EQ(read->spec, config.spec) << "seed " << seed << text;
    EXPECT_EQ(read->base_model, config.base_model);
    EXPECT_EQ(read->task_type, config.task_type);
    EXPECT_EQ(read->fan_in_fan_out, config.fan_in_fan_out);
    // The same text every time: a folder's hash depends on it.
    EXPECT_EQ(PeftConfigText(*read), text);
  }
}

// ---- what is written ----

TEST(PeftConfigTest, TheFileHasPeftsTypes) {
  PeftConfig config;
  config.spec.rank = 4;
  config.spec.alpha = 16;
  config.spec.target_modules = {"q_proj"};
  config.spec.rank_pattern = {{"v_proj", 2}};
  config.spec.alpha_pattern = {{"v_proj", 2.5}};
  const json written = json::parse(PeftConfigText(config));
  EXPECT_EQ(written["peft_type"], "LORA");
  EXPECT_EQ(written["task_type"], "CAUSAL_LM");
  EXPECT_TRUE(written["lora_alpha"].is_number_integer()) << "PEFT declares an integer";
  EXPECT_EQ(written["lora_alpha"], 16);
  EXPECT_EQ(written["rank_pattern"], (json{{"v_proj", 2}}));
  EXPECT_EQ(written["alpha_pattern"], (json{{"v_proj", 2.5}}));
  EXPECT_EQ(written["bias"], "none");
  EXPECT_EQ(written["inference_mode"], true);
  for (const char* absent : {"exclude_modules", "layers_pattern", "layers_to_transform",
                             "modules_to_save", "base_model_name_or_path"}) {
    EXPECT_TRUE(written.at(absent).is_null()) << absent;
  }
  // Nothing of what only new versions know: old ones refuse unknown keys.
  for (const char* late : {"use_dora", "lora_bias", "eva_config", "corda_config",
                           "trainable_token_indices", "qalora_group_size"}) {
    EXPECT_FALSE(written.contains(late)) << late;
  }
}

TEST(PeftConfigTest, TargetsAreAListARegularExpressionOrAllLinear) {
  PeftConfig config;
  config.spec.target_modules = {"a", "b"};
  EXPECT_EQ(json::parse(PeftConfigText(config))["target_modules"], (json{"a", "b"}));
  config.spec.target_regex = ".*x";
  EXPECT_EQ(json::parse(PeftConfigText(config))["target_modules"], ".*x");
  config.spec.target_regex.clear();
  config.spec.target_modules = {"all-linear"};
  EXPECT_EQ(json::parse(PeftConfigText(config))["target_modules"], "all-linear");
}

TEST(PeftConfigTest, OfTwoPatternsForOneNameTheFirstIsWrittenAsItIsTheOneThatCounts) {
  PeftConfig config;
  config.spec.target_modules = {"q"};
  config.spec.rank_pattern = {{"q", 3}, {"q", 5}};
  const Result<PeftConfig> read = ParsePeftConfig(PeftConfigText(config), "x");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec.rank_pattern, (std::vector<std::pair<std::string, int64_t>>{{"q", 3}}));
}

// ---- what is read ----

TEST(PeftConfigTest, WhatIsLeftOutHasPeftsDefaults) {
  const PeftConfig read = Read({{"peft_type", "LORA"}, {"target_modules", {"q"}}});
  EXPECT_EQ(read.spec.rank, 8);
  EXPECT_EQ(read.spec.alpha, 8);
  EXPECT_EQ(read.spec.dropout, 0);
  EXPECT_FALSE(read.spec.rslora);
  EXPECT_FALSE(read.fan_in_fan_out);
  EXPECT_EQ(read.task_type, "");
}

TEST(PeftConfigTest, NullIsTheSameAsNotThere) {
  json config = Minimal();
  const PeftConfig plain = Read(config);
  for (const char* key :
       {"lora_dropout", "use_rslora", "exclude_modules", "modules_to_save", "rank_pattern",
        "alpha_pattern", "layers_to_transform", "layers_pattern", "base_model_name_or_path",
        "fan_in_fan_out", "task_type", "use_dora", "bias", "megatron_config", "arrow_config",
        "layer_replication", "revision", "init_lora_weights"}) {
    config[key] = nullptr;
  }
  EXPECT_EQ(Read(config).spec, plain.spec);
}

TEST(PeftConfigTest, OneLayerMayBeANumberAndOnePatternAName) {
  json config = Minimal();
  config["layers_to_transform"] = 3;
  config["layers_pattern"] = "h";
  EXPECT_EQ(Read(config).spec.layers_to_transform, (std::vector<int64_t>{3}));
  EXPECT_EQ(Read(config).spec.layers_pattern, "h");
  config["layers_pattern"] = {"h"};
  EXPECT_EQ(Read(config).spec.layers_pattern, "h");
}

TEST(PeftConfigTest, AllLinearIsAWordInAnyCaseAndOtherTextIsAnExpression) {
  json config = Minimal();
  for (const char* word : {"all-linear", "All-Linear", "ALL-LINEAR"}) {
    config["target_modules"] = word;
    EXPECT_EQ(Read(config).spec.target_modules, (std::vector<std::string>{"all-linear"}));
    EXPECT_EQ(Read(config).spec.target_regex, "");
  }
  config["target_modules"] = "all-linears";
  EXPECT_EQ(Read(config).spec.target_regex, "all-linears");
}

TEST(PeftConfigTest, SettingsThatChangeNothingForAStoredAdapterArePassedOver) {
  for (const auto& [key, value] : std::vector<std::pair<std::string, json>>{
           {"inference_mode", false},
           {"auto_mapping", {{"base_model_class", "X"}}},
           {"peft_version", "0.18.0"},
           {"revision", "main"},
           {"megatron_core", "megatron.core"},
           {"init_lora_weights", true},
           {"init_lora_weights", false},
           {"init_lora_weights", "gaussian"},
           {"init_lora_weights", "eva"},
           {"init_lora_weights", "orthogonal"},
           {"qalora_group_size", 16},
           {"runtime_config", {{"ephemeral_gpu_offload", false}}},
           {"use_dora", false},
           {"lora_bias", false},
           {"trainable_token_indices", json::array()},
           {"a_setting_of_tomorrow", ""}}) {
    json config = Minimal();
    config[key] = value;
    EXPECT_EQ(Read(config).spec, Read(Minimal()).spec) << key;
  }
}

TEST(PeftConfigTest, InitialisationsThatMoveTheBaseAreRefusedWithTheWayOut) {
  for (const char* init : {"pissa", "pissa_niter_16", "olora", "corda", "loftq", "lora_ga"}) {
    json config = Minimal();
    config["init_lora_weights"] = init;
    const Status status = ParsePeftConfig(config.dump(), "x").status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << init;
    EXPECT_NE(status.message().find(init), std::string::npos) << status;
    EXPECT_NE(status.message().find("save_pretrained"), std::string::npos) << status;
  }
}

TEST(PeftConfigTest, NumbersOutsideTheirTypeAreRefused) {
  for (const auto& [key, value] :
       std::vector<std::pair<std::string, json>>{{"r", 18446744073709551615ULL},
                                                 {"r", 8.0},
                                                 {"r", "8"},
                                                 {"lora_alpha", "16"},
                                                 {"lora_dropout", json::array()},
                                                 {"use_rslora", 1},
                                                 {"fan_in_fan_out", "no"},
                                                 {"rank_pattern", {{"q", -0.5}}},
                                                 {"rank_pattern", {{"q", "4"}}},
                                                 {"rank_pattern", json::array({"q"})},
                                                 {"alpha_pattern", {{"q", "4"}}},
                                                 {"layers_to_transform", 1.5},
                                                 {"layers_to_transform", {{"0", 1}}},
                                                 {"layers_pattern", 5},
                                                 {"target_modules", {1, 2}},
                                                 {"exclude_modules", {true}},
                                                 {"modules_to_save", "lm_head"}}) {
    json config = Minimal();
    config[key] = value;
    const Status status = ParsePeftConfig(config.dump(), "f").status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << key << " " << value;
    EXPECT_NE(status.message().find("f: " + key), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace weft
