// Real model folders: configurations, tensors and layers of every family transformers saved.

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/formats/base_hash.h"
#include "common/formats/model_config.h"
#include "common/formats/model_layout.h"
#include "common/formats/safetensors.h"
#include "tests/support/paths.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using ::testing::Each;
using ::testing::HasSubstr;

fs::path FamilyFolder(const std::string& name) {
  return testing::SharedDir() / "golden" / "families" / name;
}

ModelConfig Config(const fs::path& folder) {
  const auto config = ReadModelConfig(folder);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config.value() : ModelConfig();
}

TEST(ModelFoldersParityTest, EveryFamilysTensorsAreThoseItsConfigurationAsksFor) {
  WEFT_NEEDS_SHARED();
  std::vector<fs::path> folders;
  for (const auto& entry : fs::directory_iterator(testing::SharedDir() / "golden" / "families")) {
    if (fs::exists(entry.path() / "config.json")) folders.push_back(entry.path());
  }
  EXPECT_GE(folders.size(), 6u);
  for (const char* name : {"stories260k", "smollm2-135m-instruct"}) {
    const fs::path folder = testing::SharedDir() / "models" / name;
    if (fs::exists(folder / "model.safetensors")) folders.push_back(folder);
  }
  for (const fs::path& folder : folders) {
    const ModelConfig config = Config(folder);
    const auto weights = SafetensorsFolder::Open(folder);
    ASSERT_TRUE(weights.ok()) << weights.status();
    EXPECT_EQ(CheckTensors(config, weights.value(), folder.string()), OkStatus());
    EXPECT_EQ(weights.value().tensors().size(), ExpectedTensors(config).size()) << folder;
  }
}

TEST(ModelFoldersParityTest, FamiliesAreReadAsTransformersMeansThem) {
  WEFT_NEEDS_SHARED();
  const ModelConfig llama3 = Config(FamilyFolder("llama3_untied"));
  EXPECT_EQ(llama3.rope.type, RopeType::kLlama3);
  EXPECT_EQ(llama3.rope.theta, 500000);
  EXPECT_FALSE(llama3.tie_word_embeddings);
  const ModelConfig linear = Config(FamilyFolder("llama_linear_rope_bias"));
  EXPECT_EQ(linear.rope.type, RopeType::kLinear);
  EXPECT_TRUE(linear.qkv_bias && linear.o_bias && linear.mlp_bias);
  EXPECT_THAT(Config(FamilyFolder("mistral_window")).sliding_window, Each(32));
  const ModelConfig qwen2 = Config(FamilyFolder("qwen2"));
  EXPECT_TRUE(qwen2.qkv_bias);
  EXPECT_EQ(qwen2.stored_dtype, DType::kBFloat16);
  EXPECT_THAT(qwen2.sliding_window, Each(0));
  const ModelConfig qwen3 = Config(FamilyFolder("qwen3_headdim"));
  EXPECT_EQ(qwen3.head_dim, 24);
  EXPECT_TRUE(qwen3.qk_norm);
  const ModelConfig gpt2 = Config(FamilyFolder("gpt2"));
  EXPECT_EQ(gpt2.intermediate_size, 256);
  EXPECT_EQ(gpt2.activation, Activation::kGeluTanh);
  EXPECT_TRUE(gpt2.tie_word_embeddings);
}

TEST(ModelFoldersParityTest, AnEncoderIsReadWithItsPositionsBehindThePaddings) {
  WEFT_NEEDS_SHARED();
  const fs::path folder = testing::SharedDir() / "models" / "roberta-minilm-l6";
  const ModelConfig roberta = Config(folder);
  EXPECT_EQ(roberta.position_offset, 1);
  EXPECT_EQ(roberta.max_positions, 512);
  EXPECT_EQ(roberta.token_types, 1);
  const auto weights = SafetensorsFolder::Open(folder);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(CheckTensors(roberta, *weights, "dir"), OkStatus());
}

TEST(ModelFoldersParityTest, OtherKindsOfModelAreRefusedByName) {
  WEFT_NEEDS_SHARED();
  const auto vit = ReadModelConfig(testing::SharedDir() / "models" / "vit-small-dinov2");
  EXPECT_THAT(vit.status().message(), HasSubstr("got ViTForImageClassification"));
}

// On a copy, since the hash is remembered beside the weights.
TEST(ModelFoldersParityTest, ABaseIsDescribedByItsHashAndLayers) {
  WEFT_NEEDS_SHARED();
  const testing::TempFolder copy;
  for (const char* file : {"config.json", "model.safetensors"}) {
    fs::copy_file(FamilyFolder("qwen2") / file, copy.path() / file);
  }
  const auto weights = SafetensorsFolder::Open(FamilyFolder("qwen2"));
  const auto base = DescribeBase(copy.path());
  ASSERT_TRUE(weights.ok()) << weights.status();
  ASSERT_TRUE(base.ok()) << base.status();
  EXPECT_EQ(base.value().hash, HashTensors(weights.value().tensors()));
  EXPECT_EQ(base.value().architecture, "Qwen2ForCausalLM");
  EXPECT_EQ(base.value().sites.size(), 3u * 7u + 1u);
  EXPECT_EQ(base.value().sites.back().path, "lm_head");
}

}  // namespace
}  // namespace weft
