// PEFT folders that say what we do not do, lack what they need or were made for another model, and
// adapter blocks with damaged bytes.

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kConfig = "adapter_config.json";
constexpr const char* kFactors = "adapter_model.safetensors";
constexpr const char* kQ = "base_model.model.model.layers.0.self_attn.q_proj";
constexpr const char* kV = "base_model.model.model.layers.0.self_attn.v_proj";

/// One adapter on two layers of the example model, as PEFT would write it.
class BadAdapterTest : public ::testing::Test {
 protected:
  void SetUp() override {
    config_ = {{"peft_type", "LORA"},
               {"r", 2},
               {"lora_alpha", 4},
               {"target_modules", "model.layers.0.self_attn.[qv]_proj"}};
    Add(std::string(kQ) + ".lora_A.weight", {2, 128});
    Add(std::string(kQ) + ".lora_B.weight", {128, 2});
    Add(std::string(kV) + ".lora_A.weight", {2, 128});
    Add(std::string(kV) + ".lora_B.weight", {64, 2});
    Write();
  }

  void Add(const std::string& name, const std::vector<int64_t>& shape) {
    int64_t bytes = 4;
    for (const int64_t dimension : shape) bytes *= dimension;
    const size_t begin = factors_.data.size();
    for (int64_t i = 0; i < bytes / 4; ++i) factors_.data += std::string("\0\0\x80\x3C", 4);
    factors_.header[name] = {
        {"dtype", "F32"}, {"shape", shape}, {"data_offsets", {begin, factors_.data.size()}}};
  }

  void Write() const {
    temp_.Write(std::string("adapter/") + kConfig, config_.dump());
    temp_.Write(std::string("adapter/") + kFactors, factors_.Bytes());
  }
  [[nodiscard]] std::string folder() const { return (temp_.path() / "adapter").string(); }

  [[nodiscard]] Ran Eval() const {
    return Execute("weft", {"eval", "--model", kTinyModel.string(), "--data", kTinyRows,
                            "--max-rows", "1", "--threads", "1", "--adapter", folder()});
  }
  /// With one field of the configuration set (null: as PEFT writes what is unused).
  [[nodiscard]] Ran With(const char* field, const Json& value) {
    Json whole = config_;
    config_[field] = value;
    Write();
    config_ = whole;
    return Eval();
  }

  TempFolder temp_;
  Json config_;
  WeightFile factors_{Json::object(), ""};
};

TEST_F(BadAdapterTest, TheUndamagedOneWorksSoThatFailuresBelowHaveTheirReason) {
  EXPECT_TRUE(Succeeded(Eval()));
  EXPECT_TRUE(
      Succeeded(With("eva_config", {{"rho", 2}})));  // says how it was made, not what it does
  EXPECT_TRUE(Succeeded(With("init_lora_weights", "gaussian")));
  EXPECT_TRUE(Succeeded(With("use_dora", false)));
  EXPECT_TRUE(Succeeded(With("layer_replication", nullptr)));
}

TEST_F(BadAdapterTest, FeaturesThatAreNotPlainLoraAreRefusedByName) {
  const std::vector<std::pair<const char*, Json>> features = {{"use_dora", true},
                                                              {"lora_bias", true},
                                                              {"layer_replication", {{0, 2}}},
                                                              {"trainable_token_indices", {1}},
                                                              {"target_parameters", {"x"}},
                                                              {"alora_invocation_tokens", {1}},
                                                              {"use_qalora", true},
                                                              {"arrow_config", {{"a", 1}}},
                                                              {"megatron_config", {{"a", 1}}},
                                                              {"bias", "all"},
                                                              {"a_setting_of_next_year", true}};
  for (const auto& [name, value] : features) {
    EXPECT_TRUE(Refused(With(name, value), {kConfig, name})) << name;
  }
  EXPECT_TRUE(Refused(With("peft_type", "IA3"), {"peft_type", "\"IA3\"", "\"LORA\""}));
}

TEST_F(BadAdapterTest, InitialisationsThatChangeTheBaseAreRefusedByName) {
  for (const char* name : {"pissa", "pissa_niter_4", "PISSA", "olora", "loftq", "corda", "lora_ga",
                           "one_of_next_year"}) {
    EXPECT_TRUE(Refused(With("init_lora_weights", name), {"init_lora_weights", name}));
  }
  EXPECT_TRUE(Refused(With("init_lora_weights", 5), {"init_lora_weights"}));
}

TEST_F(BadAdapterTest, ValuesThatCannotBeAreRefusedByField) {
  const auto refused = [&](const char* field, const Json& value, const std::string& why) {
    EXPECT_TRUE(Refused(With(field, value), {kConfig, why})) << field << " = " << value;
  };
  refused("r", 0, "rank is 0");
  refused("r", -1, "rank is -1");
  refused("r", 1.5, "wanted a whole number");
  refused("r", int64_t{1} << 40, "wanted 1 to 65536");
  refused("lora_alpha", 0, "alpha is 0");
  refused("lora_alpha", "8", "wanted a number");
  refused("lora_dropout", 1.5, "dropout is 1.5");
  refused("use_rslora", "yes", "wanted true or false");
  refused("target_modules", 5, "wanted a list of names");
  refused("target_modules", nullptr, "target_modules: missing");
  refused("target_modules", "(", "regular expression \"(\"");
  refused("rank_pattern", {{"q_proj", 0}}, "rank_pattern \"q_proj\"");
  refused("rank_pattern", {{"(", 4}}, "regular expression");
  refused("alpha_pattern", {{"q_proj", "x"}}, "alpha_pattern");
  refused("modules_to_save", "lm_head", "wanted a list of names");
  refused("layers_to_transform", "all", "wanted a whole number");
}

TEST_F(BadAdapterTest, WhatIsNoConfigurationIsRefused) {
  const std::string deep = std::string(300000, '[') + std::string(300000, ']');
  for (const std::string& text :
       {std::string(""), std::string("{"), std::string("[]"),
        "{\"peft_type\":\"LORA\",\"r\":" + deep + "}", "{\"peft_type\":" + deep + "}"}) {
    temp_.Write(std::string("adapter/") + kConfig, text);
    EXPECT_TRUE(Refused(Eval(), {folder() + "/" + kConfig})) << text.substr(0, 40);
  }
}

TEST_F(BadAdapterTest, TensorsAndConfigurationMustSayTheSame) {
  EXPECT_TRUE(Refused(With("r", 3), {kQ, "[2×128], wanted [3×128]"}));
  EXPECT_TRUE(Refused(With("target_modules", {"q_proj"}), {kV, "do not choose this layer"}));
  EXPECT_TRUE(Refused(With("exclude_modules", {"q_proj"}), {kQ, "do not choose this layer"}));
  EXPECT_TRUE(Refused(With("target_modules", "model.layers.0.self_attn.[qkv]_proj"),
                      {"k_proj.lora_A.weight is missing"}));
  EXPECT_TRUE(Refused(With("modules_to_save", {"lm_head"}), {"modules_to_save", "lm_head"}));
}

TEST_F(BadAdapterTest, TensorsThatBelongNowhereAreNamed) {
  const auto renamed = [&](const std::string& to) {
    WeightFile file = factors_;
    const std::string from = std::string(kQ) + ".lora_A.weight";
    file.header[to] = file.header[from];
    file.header.erase(from);
    temp_.Write(std::string("adapter/") + kFactors, file.Bytes());
    return Eval();
  };
  for (const char* name :
       {"junk", "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector.weight",
        "base_model.model.model.embed_tokens.lora_embedding_A",
        "model.layers.0.self_attn.q_proj.lora_A.weight"}) {
    EXPECT_TRUE(Refused(renamed(name), {kFactors, name})) << name;
  }
}

TEST_F(BadAdapterTest, AnAdapterOfAnotherModelIsToldByLayerOrShape) {
  WeightFile file{Json::object(), ""};
  std::swap(file, factors_);
  config_["target_modules"] = {"q_proj"};
  const std::string layer9 = "base_model.model.model.layers.9.self_attn.q_proj";
  Add(layer9 + ".lora_A.weight", {2, 128});
  Add(layer9 + ".lora_B.weight", {128, 2});
  Write();
  EXPECT_TRUE(Refused(Eval(), {"layers.9.self_attn.q_proj", "made for another model"}));
  factors_ = {Json::object(), ""};
  config_["target_modules"] = {"model.layers.0.self_attn.q_proj"};
  Add(std::string(kQ) + ".lora_A.weight", {2, 64});
  Add(std::string(kQ) + ".lora_B.weight", {64, 2});
  Write();
  const std::vector<std::string> words = {"self_attn.q_proj"};
  EXPECT_TRUE(Refused(Eval(), {kQ, "[2×64], wanted [2×128]"}));
  const std::string out = (temp_.path() / "out").string();
  EXPECT_TRUE(Refused(Execute("weft", {"adapter", "merge", "--model", kTinyModel.string(),
                                       "--adapter", folder(), "--out", out}),
                      words));
  EXPECT_TRUE(Refused(Execute("weft", {"train", "--model", kTinyModel.string(), "--data", kTinyRows,
                                       "--adapter-init", folder(), "--out", out, "--steps", "1"}),
                      words));
}

TEST_F(BadAdapterTest, NumbersThatAreNoneAndFilesCutShortAreRefused) {
  WeightFile file = factors_;
  file.data.replace(0, 4, std::string("\0\0\x80\x7F", 4));  // infinity
  temp_.Write(std::string("adapter/") + kFactors, file.Bytes());
  EXPECT_TRUE(Refused(Eval(), {kQ, "NaN or infinite"}));
  temp_.Write(std::string("adapter/") + kFactors,
              factors_.Bytes().substr(0, factors_.Bytes().size() - 5));
  EXPECT_TRUE(Refused(Eval(), {kFactors, "truncated"}));
  std::filesystem::remove(temp_.path() / "adapter" / kFactors);
  EXPECT_TRUE(Refused(Eval(), {kFactors}));
  temp_.Write("adapter/adapter_model.bin", "x");
  EXPECT_TRUE(Refused(Eval(), {"adapter_model.bin", "pickle", "safe_serialization=True"}));
}

TEST_F(BadAdapterTest, BlocksWithDamagedBytesAreRefused) {
  const std::string block = (temp_.path() / "a.block").string();
  ASSERT_TRUE(Succeeded(Execute("weft", {"adapter", "import", folder(), "--out", block})));
  const std::string bytes = temp_.Read("a.block");
  const auto refused = [&](const std::string& content) {
    temp_.Write("b.block", content);
    const std::string path = (temp_.path() / "b.block").string();
    EXPECT_TRUE(Refused(Execute("weft", {"adapter", "inspect", path, "--json"}), {path}));
  };
  for (const size_t size :
       {size_t{0}, size_t{8}, size_t{100}, bytes.size() / 2, bytes.size() - 1}) {
    refused(bytes.substr(0, size));
  }
  for (const size_t at : {size_t{0}, size_t{9}, size_t{20}, size_t{60}}) {
    std::string flipped = bytes;
    flipped[at] = static_cast<char>(flipped[at] ^ 0x41);
    refused(flipped);
  }
  refused(bytes + "x");
  refused(std::string(5000, '\x5A'));
  EXPECT_TRUE(Refused(Execute("weft", {"adapter", "inspect", "/no/such"}),
                      {"/no/such", "no PEFT folder, run folder or adapter block"}));
}

TEST_F(BadAdapterTest, OutputsThatCannotBeWrittenAreNamed) {
  const std::string file = temp_.Write("file", "x").string();
  for (const std::string& out : {file, file + "/below", std::string("/proc/weft")}) {
    EXPECT_TRUE(Refused(Execute("weft", {"adapter", "merge", "--model", kTinyModel.string(),
                                         "--adapter", folder(), "--out", out}),
                        {out, "--out"}));
    EXPECT_TRUE(Refused(Execute("weft", {"adapter", "export", folder(), "--out", out}), {out}));
  }
  EXPECT_TRUE(Refused(Execute("weft", {"adapter", "import", folder(), "--out", file + "/below"}),
                      {file + "/below"}));
  EXPECT_TRUE(Refused(Execute("weft", {"adapter", "merge", "--model", kTinyModel.string(),
                                       "--adapter", folder(), "--out", kTinyModel.string()}),
                      {"base model's own folder"}));
}

}  // namespace
}  // namespace weft::testing
