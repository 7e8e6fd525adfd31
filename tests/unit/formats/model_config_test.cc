// config.json in both dialects, with what is absent, odd or unsupported.

#include "common/formats/model_config.h"

#include <cmath>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Json = nlohmann::json;

Json Base(const std::string& architecture) {
  return {{"architectures", {architecture}},
          {"vocab_size", 512},
          {"hidden_size", 64},
          {"intermediate_size", 160},
          {"num_hidden_layers", 3},
          {"num_attention_heads", 8},
          {"num_key_value_heads", 4},
          {"max_position_embeddings", 512}};
}

Json Gpt2() {
  return {{"architectures", {"GPT2LMHeadModel"}},
          {"vocab_size", 512},
          {"n_embd", 64},
          {"n_layer", 3},
          {"n_head", 4},
          {"n_positions", 256}};
}

Result<ModelConfig> Parse(const Json& json, const std::string& generation = "") {
  return ParseModelConfig(json.dump(), "dir/config.json", generation);
}

ModelConfig Good(const Json& json) {
  const auto config = Parse(json);
  EXPECT_TRUE(config.ok()) << config.status();
  return config.ok() ? config.value() : ModelConfig();
}

std::string Error(const Json& json) {
  const auto config = Parse(json);
  EXPECT_FALSE(config.ok()) << json.dump();
  EXPECT_EQ(config.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(config.status().message(), HasSubstr("[config] dir/config.json"));
  return config.status().message();
}

std::string ErrorWith(Json json, const std::string& field, const Json& value) {
  json[field] = value;
  return Error(json);
}

TEST(ModelConfigTest, LlamaTakesTransformersDefaultsWhereFieldsAreAbsent) {
  Json json = Base("LlamaForCausalLM");
  json.erase("num_key_value_heads");
  const ModelConfig config = Good(json);
  EXPECT_EQ(config.architecture, "LlamaForCausalLM");
  EXPECT_EQ(config.num_kv_heads, 8);
  EXPECT_EQ(config.head_dim, 8);
  EXPECT_EQ(config.norm_eps, 1e-6);
  EXPECT_EQ(config.activation, Activation::kSilu);
  EXPECT_FALSE(config.tie_word_embeddings);
  EXPECT_FALSE(config.qkv_bias || config.o_bias || config.mlp_bias || config.qk_norm);
  EXPECT_EQ(config.rope.type, RopeType::kDefault);
  EXPECT_EQ(config.rope.theta, 10000);
  EXPECT_EQ(config.bos_id, 1);
  EXPECT_THAT(config.eos_ids, ElementsAre(2));
  EXPECT_THAT(config.sliding_window, ElementsAre(0, 0, 0));
  EXPECT_THAT(config.attention_scale, Each(1 / std::sqrt(8.0)));
}

TEST(ModelConfigTest, BothDialectsOfRopeAndDtypeSayTheSame) {
  Json old_form = Base("LlamaForCausalLM");
  old_form["rope_theta"] = 500000.0;
  old_form["torch_dtype"] = "bfloat16";
  old_form["rope_scaling"] = {{"rope_type", "llama3"},
                              {"factor", 8.0},
                              {"low_freq_factor", 1.0},
                              {"high_freq_factor", 4.0},
                              {"original_max_position_embeddings", 64}};
  Json new_form = Base("LlamaForCausalLM");
  new_form["dtype"] = "bfloat16";
  new_form["rope_parameters"] = old_form["rope_scaling"];
  new_form["rope_parameters"]["rope_theta"] = 500000.0;
  for (const Json& json : {old_form, new_form}) {
    const ModelConfig config = Good(json);
    EXPECT_EQ(config.rope.type, RopeType::kLlama3);
    EXPECT_EQ(config.rope.theta, 500000);
    EXPECT_EQ(config.rope.factor, 8);
    EXPECT_EQ(config.rope.original_positions, 64);
    EXPECT_EQ(config.stored_dtype, DType::kBFloat16);
  }
  Json oldest = Base("LlamaForCausalLM");
  oldest["rope_scaling"] = {{"type", "linear"}, {"factor", 2.0}};
  EXPECT_EQ(Good(oldest).rope.type, RopeType::kLinear);
  oldest["rope_scaling"] = nullptr;
  EXPECT_EQ(Good(oldest).rope.type, RopeType::kDefault);
}

TEST(ModelConfigTest, BiasesFollowTheFamily) {
  Json llama = Base("LlamaForCausalLM");
  llama["attention_bias"] = true;
  llama["mlp_bias"] = true;
  EXPECT_TRUE(Good(llama).qkv_bias && Good(llama).o_bias && Good(llama).mlp_bias);
  Json qwen2 = Base("Qwen2ForCausalLM");
  EXPECT_TRUE(Good(qwen2).qkv_bias);
  EXPECT_FALSE(Good(qwen2).o_bias || Good(qwen2).mlp_bias || Good(qwen2).qk_norm);
  const ModelConfig qwen3 = Good(Base("Qwen3ForCausalLM"));
  EXPECT_TRUE(qwen3.qk_norm);
  EXPECT_FALSE(qwen3.qkv_bias);
  EXPECT_EQ(qwen3.head_dim, 128);  // its class default, whatever hidden_size
  EXPECT_EQ(qwen3.bos_id, std::nullopt);
  EXPECT_THAT(qwen3.eos_ids, IsEmpty());
  Json mistral = Base("MistralForCausalLM");
  mistral["attention_bias"] = true;  // a setting Mistral does not have
  EXPECT_FALSE(Good(mistral).qkv_bias);
}

TEST(ModelConfigTest, WindowsFollowTheFamily) {
  Json mistral = Base("MistralForCausalLM");
  EXPECT_THAT(Good(mistral).sliding_window, Each(4096));
  mistral["sliding_window"] = 32;
  EXPECT_THAT(Good(mistral).sliding_window, Each(32));
  mistral["sliding_window"] = nullptr;
  EXPECT_THAT(Good(mistral).sliding_window, Each(0));
  Json qwen = Base("Qwen2ForCausalLM");
  qwen["sliding_window"] = 16;
  qwen["max_window_layers"] = 1;
  EXPECT_THAT(Good(qwen).sliding_window, Each(0));
  qwen["use_sliding_window"] = true;
  EXPECT_THAT(Good(qwen).sliding_window, ElementsAre(0, 16, 16));
  qwen["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention"};
  EXPECT_THAT(Good(qwen).sliding_window, ElementsAre(16, 0, 16));
  qwen["layer_types"] = {"full_attention"};
  EXPECT_THAT(Error(qwen), HasSubstr("layer_types: got 1 entries, wanted 3"));
  qwen["layer_types"] = {"full_attention", "chunked_attention", "full_attention"};
  EXPECT_THAT(Error(qwen), HasSubstr("got chunked_attention"));
  qwen["layer_types"] = {"full_attention", "sliding_attention", "full_attention"};
  qwen["use_sliding_window"] = false;
  EXPECT_THAT(Error(qwen), HasSubstr("there is no window"));
}

TEST(ModelConfigTest, Gpt2HasItsOwnWords) {
  const ModelConfig config = Good(Gpt2());
  EXPECT_EQ(config.family, ModelFamily::kGpt2);
  EXPECT_EQ(config.intermediate_size, 256);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.max_positions, 256);
  EXPECT_EQ(config.activation, Activation::kGeluTanh);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_THAT(config.eos_ids, ElementsAre(50256));
  EXPECT_FALSE(config.uses_rope());
  Json by_layer = Gpt2();
  by_layer["scale_attn_by_inverse_layer_idx"] = true;
  EXPECT_THAT(Good(by_layer).attention_scale, ElementsAre(0.25, 0.125, 0.25 / 3));
  by_layer["scale_attn_weights"] = false;
  EXPECT_THAT(Good(by_layer).attention_scale, ElementsAre(1, 0.5, 1 / 3.0));
  EXPECT_THAT(ErrorWith(Gpt2(), "add_cross_attention", true), HasSubstr("add_cross_attention"));
  EXPECT_THAT(ErrorWith(Gpt2(), "n_head", 7), HasSubstr("n_embd: got 64, wanted a multiple of"));
}

Json Encoder(const std::string& architecture) {
  return {{"architectures", {architecture}}, {"vocab_size", 100},        {"hidden_size", 32},
          {"num_hidden_layers", 2},          {"num_attention_heads", 4}, {"intermediate_size", 64},
          {"max_position_embeddings", 40}};
}

TEST(ModelConfigTest, EncodersHaveTheirOwnDefaults) {
  const ModelConfig bert = Good(Encoder("BertForSequenceClassification"));
  EXPECT_EQ(bert.family, ModelFamily::kBert);
  EXPECT_TRUE(bert.is_encoder());
  EXPECT_FALSE(bert.uses_rope());
  EXPECT_FALSE(bert.is_gated());
  EXPECT_EQ(bert.max_positions, 40);
  EXPECT_EQ(bert.position_offset, 0);
  EXPECT_EQ(bert.token_types, 2);
  EXPECT_EQ(bert.activation, Activation::kGelu);
  EXPECT_DOUBLE_EQ(bert.norm_eps, 1e-12);
  EXPECT_EQ(bert.labels, (std::vector<std::string>{"LABEL_0", "LABEL_1"}));
  const ModelConfig roberta = Good(Encoder("RobertaForSequenceClassification"));
  EXPECT_EQ(roberta.position_offset, 2) << "padding is token 1 unless the file says otherwise";
  EXPECT_EQ(roberta.max_positions, 38);
  Json padded = Encoder("RobertaForSequenceClassification");
  padded["pad_token_id"] = 0;
  EXPECT_EQ(Good(padded).max_positions, 39);
}

TEST(ModelConfigTest, AnEncoderIsReadAsAClassifierWhateverItWasSavedWith) {
  for (const char* name : {"BertModel", "BertForMaskedLM", "BertForPreTraining"}) {
    EXPECT_EQ(Good(Encoder(name)).architecture, "BertForSequenceClassification");
  }
  for (const char* name : {"RobertaModel", "RobertaForMaskedLM"}) {
    EXPECT_EQ(Good(Encoder(name)).architecture, "RobertaForSequenceClassification");
  }
}

TEST(ModelConfigTest, ClassesAreNamedByTheirIds) {
  Json json = Encoder("BertForSequenceClassification");
  json["num_labels"] = 3;
  EXPECT_EQ(Good(json).labels.size(), 3u);
  json["id2label"] = {{"1", "b"}, {"0", "a"}, {"2", "c"}};
  EXPECT_EQ(Good(json).labels, (std::vector<std::string>{"a", "b", "c"}));
  json["num_labels"] = 2;
  EXPECT_THAT(Error(json), HasSubstr("id2label: got 3 names, wanted 2"));
  json["num_labels"] = 3;
  json["id2label"] = {{"1", "b"}, {"0", "a"}, {"3", "c"}};
  EXPECT_THAT(Error(json), HasSubstr("id2label: field 2: is missing"));
  json.erase("id2label");
  json["num_labels"] = 1 << 20;
  EXPECT_THAT(Error(json), HasSubstr("num_labels"));
}

TEST(ModelConfigTest, EncodersThatComputeSomethingElseAreRefusedByName) {
  Json json = Encoder("BertForSequenceClassification");
  EXPECT_THAT(ErrorWith(json, "position_embedding_type", "relative_key"),
              HasSubstr("only absolute"));
  EXPECT_THAT(ErrorWith(json, "is_decoder", true), HasSubstr("is_decoder"));
  EXPECT_THAT(ErrorWith(json, "num_attention_heads", 5), HasSubstr("hidden_size"));
  json = Encoder("RobertaForSequenceClassification");
  EXPECT_THAT(ErrorWith(json, "max_position_embeddings", 2), HasSubstr("max_position_embeddings"));
}

TEST(ModelConfigTest, StopTokensComeFromTheGenerationConfigFirst) {
  Json json = Base("LlamaForCausalLM");
  json["eos_token_id"] = {5, 6};
  EXPECT_THAT(Good(json).eos_ids, ElementsAre(5, 6));
  EXPECT_THAT(Parse(json, R"({"eos_token_id":[7,8]})").value().eos_ids, ElementsAre(7, 8));
  EXPECT_THAT(Parse(json, R"({"do_sample":true})").value().eos_ids, ElementsAre(5, 6));
  json["eos_token_id"] = nullptr;
  json["bos_token_id"] = nullptr;
  EXPECT_THAT(Good(json).eos_ids, IsEmpty());
  EXPECT_EQ(Good(json).bos_id, std::nullopt);
  EXPECT_THAT(Parse(json, "{").status().message(),
              HasSubstr("generation_config.json: is not JSON"));
}

TEST(ModelConfigTest, AnUnknownArchitectureIsNamedWithTheSupportedOnes) {
  const std::string error = Error(Base("GemmaForCausalLM"));
  EXPECT_THAT(error, HasSubstr("field architectures: got GemmaForCausalLM, wanted one of"));
  EXPECT_THAT(error, HasSubstr("LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM"));
  EXPECT_THAT(error, HasSubstr("Qwen3ForCausalLM, GPT2LMHeadModel"));
  Json by_type = Base("x");
  by_type.erase("architectures");
  EXPECT_THAT(Error(by_type), HasSubstr("field architectures: is missing"));
  by_type["model_type"] = "qwen2";
  EXPECT_EQ(Good(by_type).architecture, "Qwen2ForCausalLM");
  by_type["model_type"] = "mamba";
  EXPECT_THAT(Error(by_type), HasSubstr("field model_type: got mamba"));
}

TEST(ModelConfigTest, EachNeededFieldIsNamedWhenItIsMissing) {
  for (const char* field : {"vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "max_position_embeddings"}) {
    Json json = Base("LlamaForCausalLM");
    json.erase(field);
    EXPECT_THAT(Error(json), HasSubstr(std::string("field ") + field + ": is missing"));
  }
  for (const char* field : {"vocab_size", "n_embd", "n_layer", "n_head", "n_positions"}) {
    Json json = Gpt2();
    json.erase(field);
    EXPECT_THAT(Error(json), HasSubstr(std::string("field ") + field + ": is missing"));
  }
}

TEST(ModelConfigTest, OddValuesAreRefusedByName) {
  const Json llama = Base("LlamaForCausalLM");
  EXPECT_THAT(ErrorWith(llama, "num_attention_heads", 0),
              HasSubstr("got 0, wanted a whole number"));
  EXPECT_THAT(ErrorWith(llama, "hidden_size", -64), HasSubstr("hidden_size: got -64"));
  EXPECT_THAT(ErrorWith(llama, "hidden_size", 64.5), HasSubstr("hidden_size: got 64.5"));
  EXPECT_THAT(ErrorWith(llama, "hidden_size", "64"), HasSubstr("hidden_size: got \"64\""));
  EXPECT_THAT(ErrorWith(llama, "hidden_size", uint64_t{1} << 63), HasSubstr("9223372036854775808"));
  EXPECT_THAT(ErrorWith(llama, "hidden_size", 68), HasSubstr("wanted a multiple of"));
  EXPECT_THAT(ErrorWith(llama, "num_key_value_heads", 3), HasSubstr("wanted a divisor of"));
  EXPECT_THAT(ErrorWith(llama, "head_dim", 7), HasSubstr("head_dim: got 7, wanted an even number"));
  EXPECT_THAT(ErrorWith(llama, "num_hidden_layers", 1e9), HasSubstr("num_hidden_layers: got"));
  EXPECT_THAT(ErrorWith(llama, "rms_norm_eps", -1), HasSubstr("rms_norm_eps: got -1"));
  EXPECT_THAT(ErrorWith(llama, "hidden_act", "mish"), HasSubstr("hidden_act: got mish"));
  EXPECT_THAT(ErrorWith(llama, "tie_word_embeddings", "yes"), HasSubstr("wanted true or false"));
  EXPECT_THAT(ErrorWith(llama, "architectures", "Llama"), HasSubstr("wanted a list of texts"));
  EXPECT_THAT(ErrorWith(llama, "eos_token_id", "</s>"), HasSubstr("eos_token_id: got \"</s>\""));
  EXPECT_THAT(ErrorWith(llama, "quantization_config", {{"bits", 4}}),
              HasSubstr("quantised weights are not supported"));
}

TEST(ModelConfigTest, RopeThatCannotBeComputedIsRefusedByName) {
  const Json llama = Base("LlamaForCausalLM");
  const auto rope = [&llama](const Json& value) { return ErrorWith(llama, "rope_scaling", value); };
  EXPECT_THAT(rope({{"rope_type", "longrope"}}),
              HasSubstr("rope_type: got longrope, wanted default"));
  EXPECT_THAT(rope({{"type", "linear"}}), HasSubstr("rope_scaling: field factor: is missing"));
  EXPECT_THAT(rope({{"type", "linear"}, {"factor", 0}}), HasSubstr("factor: got 0"));
  EXPECT_THAT(rope({{"rope_type", "llama3"}, {"factor", 2}}), HasSubstr("low_freq_factor: is"));
  EXPECT_THAT(rope({{"rope_type", "llama3"},
                    {"factor", 2},
                    {"low_freq_factor", 4},
                    {"high_freq_factor", 4}}),
              HasSubstr("high_freq_factor: got 4, wanted more than"));
  EXPECT_THAT(rope("linear"), HasSubstr("rope_scaling: got \"linear\", wanted an object"));
  EXPECT_THAT(ErrorWith(llama, "partial_rotary_factor", 0.5), HasSubstr("only 1 is supported"));
  EXPECT_THAT(ErrorWith(llama, "rope_parameters", {{"full_attention", Json::object()}}),
              HasSubstr("rope by kind of layer"));
  EXPECT_THAT(ErrorWith(llama, "rope_theta", 0), HasSubstr("rope_theta: got 0"));
}

// Values of transformers 5.23's yarn for the same settings.
TEST(ModelConfigTest, YarnsAttentionFactorIsWorkedOut) {
  Json json = Base("LlamaForCausalLM");
  json["rope_parameters"] = {{"rope_type", "yarn"}, {"factor", 4.0}};
  EXPECT_NEAR(Good(json).rope.attention_factor, 1.138629436111989, 1e-12);
  EXPECT_EQ(Good(json).rope.original_positions, 512);
  json["rope_parameters"] = {
      {"rope_type", "yarn"}, {"factor", 8.0}, {"mscale", 0.7}, {"mscale_all_dim", 0.5}};
  EXPECT_NEAR(Good(json).rope.attention_factor, 1.0376719952405395, 1e-12);
  json["rope_parameters"]["attention_factor"] = 1.5;
  EXPECT_EQ(Good(json).rope.attention_factor, 1.5);
  json["original_max_position_embeddings"] = 128;
  EXPECT_EQ(Good(json).rope.original_positions, 128);
}

TEST(ModelConfigTest, AFolderIsReadWithItsGenerationConfig) {
  const testing::TempFolder folder;
  const auto missing = ReadModelConfig(folder.path());
  EXPECT_EQ(missing.status().code(), Code::kNotFound);
  EXPECT_THAT(missing.status().message(), HasSubstr("config.json"));
  folder.Write("config.json", Base("LlamaForCausalLM").dump());
  folder.Write("generation_config.json", R"({"eos_token_id":[9]})");
  EXPECT_THAT(ReadModelConfig(folder.path()).value().eos_ids, ElementsAre(9));
  folder.Write("config.json", "[1]");
  EXPECT_THAT(ReadModelConfig(folder.path()).status().message(), HasSubstr("wanted a JSON object"));
  folder.Write("config.json", R"({"architectures":["Llama)");
  EXPECT_THAT(ReadModelConfig(folder.path()).status().message(), HasSubstr("is not JSON"));
}

}  // namespace
}  // namespace weft
