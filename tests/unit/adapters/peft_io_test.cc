#include "common/adapters/peft_io.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/formats/file_io.h"
#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

class PeftIoTest : public ::testing::Test {
 protected:
  static json PlainConfig() {
    return {{"peft_type", "LORA"}, {"r", 2}, {"lora_alpha", 4}, {"target_modules", {"q_proj"}}};
  }

  void WriteConfig(const json& config) {
    std::ofstream(folder_ / "adapter_config.json") << config.dump();
  }

  void WriteTensors(const std::vector<std::pair<std::string, at::Tensor>>& tensors) {
    std::vector<TensorToWrite> list;
    for (const auto& [name, value] : tensors) {
      list.push_back({name, *FromTorch(value.scalar_type()), value.sizes().vec(), BytesOf(value)});
    }
    ASSERT_TRUE(WriteSafetensors(folder_ / "adapter_model.safetensors", list).ok());
  }

  std::string ErrorOf(std::span<const LinearSite> base = {}) {
    const Result<PeftFolder> read = ReadPeft(folder_, base);
    return read.ok() ? "" : read.status().message();
  }

  testing::TempFolder own_;
  fs::path folder_ = own_.path();
  const std::string a_ = "base_model.model.layers.0.q_proj.lora_A.weight";
  const std::string b_ = "base_model.model.layers.0.q_proj.lora_B.weight";
  const std::vector<LinearSite> base_ = {{"layers.0.q_proj", 6, 8}};
};

TEST_F(PeftIoTest, GoldenFoldersAreReadAndWrittenWithoutLosingABit) {
  for (const char* name : {"qv_r8", "all_r4_pattern", "rslora_r16"}) {
    const fs::path source = testing::GoldenDir() / "train" / name / "after";
    const Result<PeftFolder> read = ReadPeft(source, {});
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_TRUE(WritePeft(read->state, folder_, {.base_model = "stories260k"}).ok());
    const Result<PeftFolder> again = ReadPeft(folder_, {});
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->state.spec, read->state.spec);
    ASSERT_TRUE(SameLayout(again->state, read->state));
    for (size_t i = 0; i < read->state.sites.size(); ++i) {
      for (const char* tensor : {"A", "B"}) {
        EXPECT_TRUE(at::equal(again->state.sites[i].Get(tensor), read->state.sites[i].Get(tensor)));
      }
    }
    EXPECT_EQ(again->config.base_model, "stories260k");
  }
}

TEST_F(PeftIoTest, LayersComeInNumericalOrder) {
  WriteConfig(PlainConfig());
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const char* layer : {"10", "2", "0"}) {
    const std::string path = std::string("base_model.model.layers.") + layer + ".q_proj.lora_";
    tensors.emplace_back(path + "A.weight", at::ones({2, 6}));
    tensors.emplace_back(path + "B.weight", at::ones({8, 2}));
  }
  WriteTensors(tensors);
  const Result<PeftFolder> read = ReadPeft(folder_, {});
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->state.sites[0].site.path, "layers.0.q_proj");
  EXPECT_EQ(read->state.sites[1].site.path, "layers.2.q_proj");
  EXPECT_EQ(read->state.sites[2].site.path, "layers.10.q_proj");
}

TEST_F(PeftIoTest, HalfPrecisionAndNamedAdaptersAreReadAsFloat32) {
  WriteConfig(PlainConfig());
  WriteTensors({{"base_model.model.layers.0.q_proj.lora_A.default.weight",
                 at::full({2, 6}, 0.5).to(at::kBFloat16)},
                {b_, at::full({8, 2}, 0.25).to(at::kHalf)}});
  const Result<PeftFolder> read = ReadPeft(folder_, base_);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->state.sites[0].Get("A").scalar_type(), at::kFloat);
  EXPECT_EQ(read->state.sites[0].Get("B")[0][0].item<float>(), 0.25f);
}

TEST_F(PeftIoTest, MissingAndMisshapenTensorsAreNamed) {
  WriteConfig(PlainConfig());
  WriteTensors({{a_, at::ones({2, 6})}});
  EXPECT_NE(ErrorOf(base_).find(b_ + " is missing"), std::string::npos) << ErrorOf(base_);
  WriteTensors({{a_, at::ones({3, 6})}, {b_, at::ones({8, 3})}});
  EXPECT_NE(ErrorOf(base_).find(a_ + ": shape [3×6], wanted [2×6]"), std::string::npos)
      << ErrorOf(base_);
  WriteTensors({{a_, at::ones({2, 6})}, {b_, at::ones({9, 2})}});
  EXPECT_NE(ErrorOf(base_).find(b_ + ": shape [9×2], wanted [8×2]"), std::string::npos);
  WriteTensors({{a_, at::ones({2, 6})}, {b_, at::ones({8})}});
  EXPECT_NE(ErrorOf().find("wanted a matrix"), std::string::npos) << ErrorOf();
}

TEST_F(PeftIoTest, TensorsThatBelongNowhereAreNamed) {
  WriteConfig(PlainConfig());
  const auto with = [&](const std::string& name, at::Tensor value) {
    WriteTensors({{a_, at::ones({2, 6})}, {b_, at::ones({8, 2})}, {name, value}});
    return ErrorOf(base_);
  };
  const std::string other = "base_model.model.layers.1.q_proj.lora_A.weight";
  EXPECT_NE(with(other, at::ones({2, 6})).find("has no linear layer layers.1.q_proj"),
            std::string::npos);
  EXPECT_NE(with("base_model.model.lm_head.weight", at::ones({4, 6})).find("modules_to_save"),
            std::string::npos);
  EXPECT_NE(with("base_model.model.embed.lora_embedding_A", at::ones({2, 6}))
                .find("no factor of a plain LoRA"),
            std::string::npos);
  EXPECT_NE(with("base_model.model.layers.0.v_proj.lora_A.weight", at::ones({2, 6}))
                .find("do not choose this layer"),
            std::string::npos);
}

TEST_F(PeftIoTest, WrongValuesAreNamed) {
  WriteConfig(PlainConfig());
  WriteTensors({{a_, at::full({2, 6}, NAN)}, {b_, at::ones({8, 2})}});
  EXPECT_NE(ErrorOf(base_).find(a_ + ": holds NaN"), std::string::npos) << ErrorOf(base_);
  WriteTensors({{a_, at::ones({2, 6}).to(at::kInt)}, {b_, at::ones({8, 2})}});
  EXPECT_NE(ErrorOf(base_).find("element type I32"), std::string::npos) << ErrorOf(base_);
}

TEST_F(PeftIoTest, APickleIsRefusedWithTheWayOut) {
  WriteConfig(PlainConfig());
  std::ofstream(folder_ / "adapter_model.bin") << "pickle";
  EXPECT_NE(ErrorOf().find("safe_serialization=True"), std::string::npos) << ErrorOf();
}

TEST_F(PeftIoTest, SavedModulesTravelAsDenseTensors) {
  json config = PlainConfig();
  config["modules_to_save"] = {"lm_head"};
  WriteConfig(config);
  const at::Tensor head = at::randn({4, 6});
  WriteTensors(
      {{a_, at::ones({2, 6})}, {b_, at::ones({8, 2})}, {"base_model.model.lm_head.weight", head}});
  const Result<PeftFolder> read = ReadPeft(folder_, base_);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->state.dense.size(), 1u);
  EXPECT_EQ(read->state.dense[0].name, "lm_head.weight");
  const fs::path copy = folder_ / "copy";
  ASSERT_TRUE(WritePeft(read->state, copy, {}).ok());
  const Result<PeftFolder> again = ReadPeft(copy, base_);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(at::equal(again->state.dense[0].value, head));
}

TEST_F(PeftIoTest, AllLinearIsWrittenAsTheNamesItStoodFor) {
  AdapterSpec spec;
  spec.target_modules = {"all-linear"};
  const std::vector<LinearSite> sites = {{"l.0.up", 4, 4}, {"l.0.down", 4, 4}};
  const AdapterState state = *(*FindAdapter("lora"))->Init(spec, sites, 1);
  ASSERT_TRUE(WritePeft(state, folder_, {}).ok());
  EXPECT_EQ(ReadPeftConfig(folder_)->spec.target_modules, (std::vector<std::string>{"down", "up"}));
}

TEST(PeftConfigTest, EverySettingOfPlainLoraSurvivesARoundTrip) {
  const json config = {{"peft_type", "LORA"},
                       {"r", 4},
                       {"lora_alpha", 2.5},
                       {"lora_dropout", 0.1},
                       {"use_rslora", true},
                       {"bias", "none"},
                       {"task_type", "SEQ_CLS"},
                       {"fan_in_fan_out", true},
                       {"base_model_name_or_path", "some/base"},
                       {"target_modules", {"v", "q"}},
                       {"exclude_modules", ".*\\.3\\..*"},
                       {"modules_to_save", {"classifier"}},
                       {"layers_to_transform", {2, 5}},
                       {"layers_pattern", {"h", "layers"}},
                       {"rank_pattern", {{"q", 2}}},
                       {"alpha_pattern", {{"v", 7}}},
                       {"init_lora_weights", "gaussian"},
                       {"loftq_config", json::object()},
                       {"eva_config", nullptr},
                       {"use_dora", false},
                       {"something_new", nullptr}};
  const Result<PeftConfig> read = ParsePeftConfig(config.dump(), "x");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec.alpha, 2.5);
  EXPECT_EQ(read->spec.layers_pattern, "h,layers");
  EXPECT_TRUE(read->fan_in_fan_out);
  EXPECT_EQ(read->task_type, "SEQ_CLS");
  const Result<PeftConfig> again = ParsePeftConfig(PeftConfigText(*read), "x");
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->spec, read->spec);
  EXPECT_EQ(again->task_type, read->task_type);
  EXPECT_EQ(again->base_model, "some/base");
}

TEST(PeftConfigTest, TheFirstPatternInTheFileWins) {
  const auto read = ParsePeftConfig(
      R"({"peft_type":"LORA","target_modules":["q"],"rank_pattern":{"z.q":1,"a.q":2,"q":3}})", "x");
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec.rank_pattern[0].first, "z.q");
  EXPECT_EQ(read->spec.rank_pattern[2].first, "q");
}

TEST(PeftConfigTest, WhatIsNotPlainLoraIsRefusedByName) {
  const std::vector<std::pair<std::string, json>> refused = {
      {"use_dora", true},
      {"bias", "all"},
      {"lora_bias", true},
      {"layer_replication", json::array({json::array({0, 2})})},
      {"trainable_token_indices", {1, 2}},
      {"target_parameters", {"w"}},
      {"alora_invocation_tokens", {1}},
      {"use_qalora", true},
      {"use_bdlora", json{{"x", 1}}},
      {"arrow_config", json{{"x", 1}}},
      {"kasa_config", json{{"beta", 0.1}}},
      {"monteclora_config", json{{"x", 1}}},
      {"velora_config", json{{"x", 1}}},
      {"megatron_config", json{{"x", 1}}},
      {"ensure_weight_tying", true},
      {"init_lora_weights", "pissa_niter_4"},
      {"init_lora_weights", "loftq"},
      {"init_lora_weights", 3},
      {"brand_new_variant", 0.5},
      {"r", "four"},
      {"r", 4.5},
      {"lora_alpha", true},
      {"target_modules", 3},
      {"target_modules", nullptr},
      {"rank_pattern", {{"q", 1.5}}},
      {"alpha_pattern", json::array({1})},
      {"layers_to_transform", {"one"}},
      {"peft_type", "IA3"}};
  for (const auto& [key, value] : refused) {
    json config = {{"peft_type", "LORA"}, {"r", 2}, {"target_modules", {"q"}}};
    config[key] = value;
    const Result<PeftConfig> read = ParsePeftConfig(config.dump(), "folder/adapter_config.json");
    ASSERT_FALSE(read.ok()) << key << " " << value;
    EXPECT_EQ(read.status().code(), Code::kInvalidArgument);
    EXPECT_NE(read.status().message().find("folder/adapter_config.json: " + key), std::string::npos)
        << read.status();
  }
}

TEST(PeftConfigTest, WhatIsNoJsonObjectIsRefused) {
  for (const char* text : {"", "[]", "{", "{\"r\":NaN}", "null"}) {
    EXPECT_FALSE(ParsePeftConfig(text, "x").ok()) << text;
  }
}

}  // namespace
}  // namespace weft
