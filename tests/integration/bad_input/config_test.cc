// A model folder whose config.json lacks fields or holds absurd ones, or whose tokenizer is damaged
// or another model's: refused by field, with what was wanted.

#include <gtest/gtest.h>

#include "tests/integration/bad_input/damaged_model.h"

namespace weft::testing {
namespace {

using Json = nlohmann::ordered_json;

TEST(BadConfigTest, EveryNeededFieldIsNamedWhereItIsMissing) {
  const DamagedModel model;
  for (const char* field : {"hidden_size", "intermediate_size", "num_hidden_layers",
                            "num_attention_heads", "vocab_size", "max_position_embeddings"}) {
    model.Config([&](Json& json) { json.erase(field); });
    EXPECT_TRUE(Refused(model.Eval(), {model.File("config.json"), field, "is missing"}));
  }
}

TEST(BadConfigTest, AbsurdValuesAreRefusedWithTheRangeThatIsWanted) {
  const DamagedModel model;
  for (const char* field :
       {"hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings"}) {
    for (const Json& value : {Json(0), Json(-1), Json(int64_t{1} << 40)}) {
      model.Config([&](Json& json) { json[field] = value; });
      EXPECT_TRUE(Refused(model.Eval(), {field, "got " + value.dump(), "wanted a whole number"}));
    }
  }
  for (const Json& value : {Json(1.5), Json("4"), Json(true), Json::array({4})}) {
    model.Config([&](Json& json) { json["hidden_size"] = value; });
    EXPECT_TRUE(Refused(model.Eval(), {"hidden_size", "wanted a whole number"})) << value;
  }
}

TEST(BadConfigTest, FieldsThatContradictEachOtherOrTheWeightsAreNamed) {
  const DamagedModel model;
  const auto refused = [&](const char* field, const Json& value,
                           const std::vector<std::string>& words) {
    model.Config([&](Json& json) { json[field] = value; });
    EXPECT_TRUE(Refused(model.Eval(), words)) << field << " = " << value;
  };
  refused("num_attention_heads", 3, {"num_key_value_heads", "divisor"});
  refused("num_hidden_layers", 4096, {"model.layers.4", "is missing"});
  refused("head_dim", 31, {"head_dim", "even"});
  refused("tie_word_embeddings", false, {"lm_head.weight", "is missing"});
  refused("hidden_act", "mish", {"hidden_act", "mish", "silu"});
  refused("rope_scaling", {{"type", "weird"}, {"factor", 2}}, {"rope", "weird", "linear"});
  refused("rope_scaling", {{"type", "linear"}, {"factor", -1}}, {"factor", "got -1"});
  refused("quantization_config", {{"bits", 4}}, {"quantised weights are not supported"});
}

TEST(BadConfigTest, AnUnknownArchitectureIsNamedBesideTheKnownOnes) {
  const DamagedModel model;
  model.Config([](Json& json) { json["architectures"] = {"MambaForCausalLM"}; });
  EXPECT_TRUE(Refused(model.Eval(), {"got MambaForCausalLM", "LlamaForCausalLM", "Qwen3"}));
  model.Config([](Json& json) {
    json.erase("architectures");
    json["model_type"] = "mamba";
  });
  EXPECT_TRUE(Refused(model.Eval(), {"model_type", "mamba", "GPT2LMHeadModel"}));
}

TEST(BadConfigTest, WhatIsNoConfigurationIsRefused) {
  const DamagedModel model;
  const std::string deep = std::string(300000, '[') + std::string(300000, ']');
  for (const std::string& text : {std::string(""), std::string("{"), std::string("[]"),
                                  std::string("\xFF\xFE{}"), "{\"hidden_size\":" + deep + "}"}) {
    model.Write("config.json", text);
    EXPECT_TRUE(Refused(model.Eval(), {model.File("config.json")})) << text.substr(0, 40);
  }
  model.Config([](Json&) {});
  model.Write("generation_config.json", "{\"eos_token_id\":\"x\"}");
  EXPECT_TRUE(Refused(model.Eval(), {model.File("generation_config.json"), "eos_token_id"}));
}

TEST(BadConfigTest, AFolderThatIsNoModelSaysWhatOneIs) {
  const DamagedModel model;
  model.Remove("config.json");
  EXPECT_TRUE(Refused(model.Eval(), {model.folder(), "no config.json"}));
  for (const char* name : {"/no/such/folder", ""}) {
    const std::string folder = name;
    EXPECT_TRUE(Refused(Execute("weft", {"eval", "--model", folder, "--data", kTinyRows}),
                        {"[model] \"" + folder + "\" is no folder", "config.json"}));
  }
}

// ---- tokenizers ----

Ran Tokenize(const DamagedModel& model) {
  return Execute("weft", {"tokenize", "--model", model.folder()},
                 {.input = "{\"text\":\"a pump\"}\n"});
}

TEST(BadTokenizerTest, ATruncatedFileIsNamed) {
  const DamagedModel model;
  for (const size_t size : {size_t{0}, size_t{1}, size_t{1000}}) {
    model.Write("tokenizer.json", std::string("{\"version\":\"1.0\"").substr(0, size) +
                                      std::string(size > 100 ? size : 0, ' '));
    EXPECT_TRUE(Refused(Tokenize(model), {model.folder(), "[tokenizer.json] is not JSON"}));
  }
  model.Remove("tokenizer.json");
  EXPECT_TRUE(Refused(Tokenize(model), {model.folder(), "tokenizer.json", "tokenizer.model"}));
  model.Write("tokenizer.model", "\x0A\x10garbage");
  EXPECT_TRUE(Refused(Tokenize(model), {"[tokenizer.model]", "no sentencepiece model"}));
}

TEST(BadTokenizerTest, IdsBeyondTheVocabularyMeanItIsAnotherModels) {
  const DamagedModel model;
  model.Tokenizer([](Json& json) {
    json["added_tokens"].push_back({{"id", 600}, {"content", "<new>"}, {"special", true}});
  });
  const std::vector<std::string> words = {"ids up to 600", "ends at 511", "another model's"};
  EXPECT_TRUE(Refused(model.Eval(), words));
  const std::vector<std::string> of_model = {"--model", model.folder()};
  const auto refused = [&](const std::string& program, std::vector<std::string> arguments) {
    arguments.insert(arguments.end(), of_model.begin(), of_model.end());
    EXPECT_TRUE(Refused(Execute(program, arguments), words));
  };
  refused("weft", {"generate", "--prompt", "the"});
  refused("weft", {"train", "--data", kTinyRows, "--out", model.File("out"), "--steps", "1"});
  refused("weft", {"bench", "train", "--data", kTinyRows, "--steps", "1"});
  refused("weft-client", {"--name", "a", "--data", kTinyRows, "--check"});
  const auto run = std::filesystem::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "run.toml";
  refused("weft-sim", {run.string()});
}

TEST(BadTokenizerTest, WhatTheReaderDoesNotKnowIsRefusedByPlace) {
  const DamagedModel model;
  const auto refused = [&](const std::function<void(Json&)>& edit,
                           const std::vector<std::string>& words) {
    model.Tokenizer(edit);
    EXPECT_TRUE(Refused(Tokenize(model), words));
  };
  refused([](Json& j) { j["model"]["type"] = "Unigram"; }, {"/model", "Unigram", "BPE"});
  refused([](Json& j) { j["model"]["vocab"]["zzz"] = -1; }, {"/model/vocab", "\"zzz\""});
  refused([](Json& j) { j["model"]["vocab"]["zzz"] = 5; }, {"/model/vocab", "same id 5"});
  refused([](Json& j) { j["model"]["merges"].push_back("only"); }, {"/model/merges", "\"only\""});
  refused([](Json& j) { j["normalizer"] = {{"type", "Weird"}}; }, {"/normalizer", "Weird", "NFC"});
  refused(
      [](Json& j) {
        j["pre_tokenizer"] = {{"type", "Split"},
                              {"pattern", {{"Regex", "(["}}},
                              {"behavior", "Isolated"},
                              {"invert", false}};
      },
      {"/pre_tokenizer", "\"([\""});
}

TEST(BadTokenizerTest, AWrongTokenizerConfigIsNamed) {
  const DamagedModel model;
  for (const char* text : {"{", "[]", R"({"eos_token":5})", R"({"eos_token":"<nope>"})"}) {
    model.Write("tokenizer_config.json", text);
    EXPECT_TRUE(Refused(Tokenize(model), {"[tokenizer_config.json]"})) << text;
  }
}

TEST(BadTokenizerTest, AnUnknownChatTemplateMattersOnlyWhereItIsUsed) {
  const DamagedModel model;
  model.Write("chat_template.jinja", "{% for m in messages %}### {{ m.role }}{% endfor %}");
  EXPECT_TRUE(Succeeded(model.Eval()));
  EXPECT_TRUE(Refused(model.Eval({"--chat"}),
                      {"line 1", "no known family", "--chat-template", "chatml, llama2, llama3"}));
  EXPECT_TRUE(Succeeded(model.Eval({"--chat", "--chat-template", "chatml"})));
}

}  // namespace
}  // namespace weft::testing
