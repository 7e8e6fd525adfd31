// The tensors and linear layers of each family, and folders that lack, misshape or add some.

#include "common/formats/model_layout.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/formats/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using testing::TempFolder;

ModelConfig Llama() {
  ModelConfig config;
  config.architecture = "LlamaForCausalLM";
  config.vocab_size = 10;
  config.hidden_size = 8;
  config.intermediate_size = 12;
  config.num_layers = 2;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.head_dim = 6;
  config.max_positions = 16;
  return config;
}

ModelConfig Gpt2() {
  ModelConfig config = Llama();
  config.architecture = "GPT2LMHeadModel";
  config.family = ModelFamily::kGpt2;
  config.num_kv_heads = 4;
  config.head_dim = 2;
  config.tie_word_embeddings = true;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  return config;
}

ModelConfig Roberta() {
  ModelConfig config = Gpt2();
  config.architecture = "RobertaForSequenceClassification";
  config.family = ModelFamily::kRoberta;
  config.tie_word_embeddings = false;
  config.token_types = 1;
  config.position_offset = 2;
  config.labels = {"a", "b", "c"};
  return config;
}

ModelConfig Bert() {
  ModelConfig config = Roberta();
  config.architecture = "BertForSequenceClassification";
  config.family = ModelFamily::kBert;
  config.position_offset = 0;
  return config;
}

// A folder of zeros with the given tensors.
struct Folder {
  TempFolder folder;
  std::vector<ExpectedTensor> tensors;
  DType dtype = DType::kFloat32;

  [[nodiscard]] SafetensorsFolder Open() const {
    const std::string zeros(1 << 16, '\0');
    std::vector<TensorToWrite> out;
    for (const ExpectedTensor& tensor : tensors) {
      const size_t bytes = TensorBytes(dtype, tensor.shape).value();
      out.push_back({tensor.name, dtype, tensor.shape, AsBytes(zeros).first(bytes)});
    }
    EXPECT_EQ(WriteSafetensors(folder.path() / "model.safetensors", out), OkStatus());
    return SafetensorsFolder::Open(folder.path()).value();
  }
};

std::string CheckError(const ModelConfig& config, const Folder& folder) {
  const Status status = CheckTensors(config, folder.Open(), "dir");
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(status.message(), HasSubstr("[model] dir: tensor "));
  return status.message();
}

TEST(ModelLayoutTest, LlamaHasItsTensorsAndShapes) {
  const auto tensors = ExpectedTensors(Llama());
  EXPECT_EQ(tensors.size(), 3u + 2u * 9u);
  EXPECT_EQ(tensors.front(), (ExpectedTensor{"model.embed_tokens.weight", {10, 8}}));
  EXPECT_EQ(tensors.back(), (ExpectedTensor{"lm_head.weight", {10, 8}}));
  for (const ExpectedTensor& wanted :
       std::vector<ExpectedTensor>{{"model.layers.1.self_attn.q_proj.weight", {24, 8}},
                                   {"model.layers.1.self_attn.k_proj.weight", {12, 8}},
                                   {"model.layers.1.self_attn.v_proj.weight", {12, 8}},
                                   {"model.layers.1.self_attn.o_proj.weight", {8, 24}},
                                   {"model.layers.1.mlp.down_proj.weight", {8, 12}},
                                   {"model.layers.1.post_attention_layernorm.weight", {8}},
                                   {"model.norm.weight", {8}}}) {
    EXPECT_THAT(tensors, Contains(wanted)) << wanted.name;
  }
}

TEST(ModelLayoutTest, BiasesNormsAndTiesChangeTheList) {
  ModelConfig config = Llama();
  config.tie_word_embeddings = true;
  config.qkv_bias = config.qk_norm = true;
  const auto tensors = ExpectedTensors(config);
  EXPECT_THAT(tensors, Not(Contains(ExpectedTensor{"lm_head.weight", {10, 8}})));
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"model.layers.0.self_attn.k_proj.bias", {12}}));
  EXPECT_THAT(tensors, Not(Contains(ExpectedTensor{"model.layers.0.self_attn.o_proj.bias", {8}})));
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"model.layers.0.self_attn.q_norm.weight", {6}}));
}

TEST(ModelLayoutTest, Gpt2StoresItsProductsTransposed) {
  const auto tensors = ExpectedTensors(Gpt2());
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"transformer.h.0.attn.c_attn.weight", {8, 24}}));
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"transformer.h.0.attn.c_attn.bias", {24}}));
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"transformer.h.1.mlp.c_proj.weight", {12, 8}}));
  EXPECT_THAT(tensors, Contains(ExpectedTensor{"transformer.wpe.weight", {16, 8}}));
  EXPECT_THAT(LinearSites(Gpt2()), Contains(LinearSite{"transformer.h.1.mlp.c_proj", 12, 8}));
  EXPECT_EQ(LinearSites(Gpt2()).size(), 8u);
}

TEST(ModelLayoutTest, SitesAreTheBlocksLinearLayersInOrderOfUse) {
  const auto sites = LinearSites(Llama());
  ASSERT_EQ(sites.size(), 14u);
  EXPECT_EQ(sites[0], (LinearSite{"model.layers.0.self_attn.q_proj", 8, 24}));
  EXPECT_EQ(sites[3], (LinearSite{"model.layers.0.self_attn.o_proj", 24, 8}));
  EXPECT_EQ(sites[13], (LinearSite{"model.layers.1.mlp.down_proj", 12, 8}));
  EXPECT_EQ(OutputHeadSite(Llama()), (LinearSite{"lm_head", 8, 10}));
}

TEST(ModelLayoutTest, ACompleteFolderPassesInEachFloatingType) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat16, DType::kBFloat16}) {
    for (const ModelConfig& config : {Llama(), Gpt2()}) {
      const Folder folder{.folder = {}, .tensors = ExpectedTensors(config), .dtype = dtype};
      EXPECT_EQ(CheckTensors(config, folder.Open(), "dir"), OkStatus());
    }
  }
}

TEST(ModelLayoutTest, AMissingOrMisshapenTensorIsNamedWithGotAndWanted) {
  Folder folder{.folder = {}, .tensors = ExpectedTensors(Llama())};
  folder.tensors[4].shape = {8, 12};
  EXPECT_THAT(CheckError(Llama(), folder),
              HasSubstr("model.layers.0.self_attn.v_proj.weight: got [8×12], config.json asks for "
                        "[12×8]"));
  folder.tensors.erase(folder.tensors.begin() + 4);
  EXPECT_THAT(CheckError(Llama(), folder),
              HasSubstr("v_proj.weight is missing, config.json asks for it as [12×8]"));
}

TEST(ModelLayoutTest, OtherElementTypesAreRefused) {
  const Folder folder{.folder = {}, .tensors = ExpectedTensors(Llama()), .dtype = DType::kInt8};
  EXPECT_THAT(CheckError(Llama(), folder), HasSubstr("got I8, wanted F32, F16 or BF16"));
}

TEST(ModelLayoutTest, KnownBuffersAndATiedHeadAreToleratedStrangersAreNot) {
  ModelConfig tied = Llama();
  tied.tie_word_embeddings = true;
  Folder folder{.folder = {}, .tensors = ExpectedTensors(tied)};
  folder.tensors.push_back({"model.layers.0.self_attn.rotary_emb.inv_freq", {3}});
  folder.tensors.push_back({"lm_head.weight", {10, 8}});
  EXPECT_EQ(CheckTensors(tied, folder.Open(), "dir"), OkStatus());
  folder.tensors.push_back({"model.layers.0.self_attn.q_proj.bias", {24}});
  EXPECT_THAT(CheckError(tied, folder), HasSubstr("q_proj.bias [24] is none that Llama"));
}

TEST(ModelLayoutTest, FilesOfTheBodyAloneNeedNoPrefix) {
  Folder folder{.folder = {}, .tensors = ExpectedTensors(Gpt2())};
  for (ExpectedTensor& tensor : folder.tensors) {
    tensor.name = tensor.name.substr(std::string("transformer.").size());
  }
  folder.tensors.push_back({"h.0.attn.bias", {1, 1, 16, 16}});
  const SafetensorsFolder weights = folder.Open();
  EXPECT_EQ(CheckTensors(Gpt2(), weights, "dir"), OkStatus());
  const StoredTensor* const wte = FindWeight(Gpt2(), weights, "transformer.wte.weight");
  ASSERT_NE(wte, nullptr);
  EXPECT_EQ(wte->name, "wte.weight");
  EXPECT_EQ(FindWeight(Gpt2(), weights, "transformer.absent"), nullptr);
}

TEST(ModelLayoutTest, EncodersSitesAreTheirLayersAndBertsPooler) {
  const std::vector<LinearSite> sites = LinearSites(Roberta());
  ASSERT_EQ(sites.size(), 12u);
  EXPECT_EQ(sites[0], (LinearSite{"roberta.encoder.layer.0.attention.self.query", 8, 8}));
  EXPECT_EQ(sites[10], (LinearSite{"roberta.encoder.layer.1.intermediate.dense", 8, 12}));
  EXPECT_EQ(LinearSites(Bert()).back(), (LinearSite{"bert.pooler.dense", 8, 8}));
  EXPECT_EQ(HeadSites(Bert()), (std::vector<LinearSite>{{"classifier", 8, 3}}));
  EXPECT_EQ(HeadSites(Roberta()),
            (std::vector<LinearSite>{{"classifier.dense", 8, 8}, {"classifier.out_proj", 8, 3}}));
  EXPECT_EQ(HeadTensors(Roberta(), 7)[3], (ExpectedTensor{"classifier.out_proj.bias", {7}}));
  EXPECT_TRUE(HeadTensors(Llama(), 7).empty());
}

TEST(ModelLayoutTest, AClassificationHeadIsThereAsAWholeOrNotAtAll) {
  for (const ModelConfig& config : {Roberta(), Bert()}) {
    Folder folder{.folder = {}, .tensors = ExpectedTensors(config)};
    EXPECT_EQ(CheckTensors(config, folder.Open(), "dir"), OkStatus());
    for (const ExpectedTensor& tensor : HeadTensors(config, 3)) folder.tensors.push_back(tensor);
    EXPECT_EQ(CheckTensors(config, folder.Open(), "dir"), OkStatus());
    folder.tensors.back().shape = {4};
    EXPECT_THAT(CheckError(config, folder), HasSubstr("got [4], config.json asks for [3]"));
    folder.tensors.pop_back();
    EXPECT_THAT(CheckError(config, folder), HasSubstr("bias is missing"));
  }
}

TEST(ModelLayoutTest, PretrainingHeadsAndOldNamesOfNormsAreTolerated) {
  Folder folder{.folder = {}, .tensors = ExpectedTensors(Bert())};
  for (ExpectedTensor& tensor : folder.tensors) {
    for (const auto& [now, once] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"),
                                    std::pair("LayerNorm.bias", "LayerNorm.beta")}) {
      if (const size_t at = tensor.name.find(now); at != std::string::npos) {
        tensor.name = tensor.name.substr(0, at) + once;
      }
    }
  }
  folder.tensors.push_back({"cls.predictions.bias", {10}});
  folder.tensors.push_back({"bert.embeddings.position_ids", {1, 16}});
  const SafetensorsFolder weights = folder.Open();
  EXPECT_EQ(CheckTensors(Bert(), weights, "dir"), OkStatus());
  EXPECT_EQ(FindWeight(Bert(), weights, "bert.embeddings.LayerNorm.bias")->name,
            "bert.embeddings.LayerNorm.beta");
  Folder roberta{.folder = {}, .tensors = ExpectedTensors(Roberta())};
  roberta.tensors.push_back({"lm_head.dense.weight", {8, 8}});
  roberta.tensors.push_back({"roberta.pooler.dense.weight", {8, 8}});
  EXPECT_EQ(CheckTensors(Roberta(), roberta.Open(), "dir"), OkStatus());
  roberta.tensors.push_back({"classify.weight", {8, 8}});
  EXPECT_THAT(CheckError(Roberta(), roberta), HasSubstr("is none that Roberta"));
}

}  // namespace
}  // namespace weft
