#pragma once
// A RoBERTa folder with random weights and no classification head, a WordPiece vocabulary of a few
// words, and labelled rows that these words tell apart.

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "common/formats/safetensors_writer.h"
#include "common/model/model.h"
#include "common/tensor/dtype_map.h"

namespace weft::testing {

inline constexpr char kSmallEncoderConfig[] = R"({"architectures":["RobertaForMaskedLM"],
"model_type":"roberta","hidden_size":16,"intermediate_size":24,"num_hidden_layers":2,
"num_attention_heads":2,"vocab_size":14,"max_position_embeddings":33,"type_vocab_size":1,
"hidden_act":"gelu","layer_norm_eps":1e-5,"pad_token_id":0,"bos_token_id":1,"eos_token_id":2,
"initializer_range":0.3})";

inline constexpr char kSmallEncoderTokenizer[] = R"({"model":{"type":"WordPiece","vocab":{
"[PAD]":0,"[CLS]":1,"[SEP]":2,"[UNK]":3,"the":4,"ship":5,"was":6,"good":7,"fine":8,"bad":9,"poor":10,
"sea":11,"and":12,"very":13}},"normalizer":{"type":"BertNormalizer"},
"pre_tokenizer":{"type":"BertPreTokenizer"},
"post_processor":{"type":"BertProcessing","cls":["[CLS]",1],"sep":["[SEP]",2]}})";

/// The whole folder.
inline Status WriteSmallEncoder(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << kSmallEncoderConfig;
  std::ofstream(folder / "tokenizer.json") << kSmallEncoderTokenizer;
  WEFT_TRY_ASSIGN(const std::shared_ptr<Model> model, Model::Load(folder, {.init_seed = 3}));
  std::vector<TensorToWrite> tensors;
  const std::vector<NamedTensor> weights = model->AllWeights();
  for (const NamedTensor& weight : weights) {
    if (weight.name.starts_with("classifier.")) continue;
    tensors.push_back({weight.name, *FromTorch(weight.value.scalar_type()),
                       weight.value.sizes().vec(), BytesOf(weight.value)});
  }
  return WriteSafetensors(folder / "model.safetensors", tensors);
}

/// JSONL of `count` rows; labels are "bad" and "good" in turn, or 0 and 1.
inline std::string SmallSentiment(int count, bool numbers = false) {
  const char* const words[2][2] = {{"bad", "poor"}, {"good", "fine"}};
  const char* const subjects[] = {"ship", "sea", "ship and sea"};
  std::string rows;
  for (int i = 0; i < count; ++i) {
    const int label = i % 2;
    const std::string text = std::string("the ") + subjects[i % 3] + " was " +
                             (i % 5 == 0 ? "very " : "") + words[label][(i / 2) % 2];
    const std::string name =
        numbers ? std::to_string(label) : (label == 0 ? "\"bad\"" : "\"good\"");
    rows += "{\"text\":\"" + text + "\",\"label\":" + name + "}\n";
  }
  return rows;
}

}  // namespace weft::testing
