#pragma once
// A model folder with random weights in a temporary place: the example model's configuration
// (smaller) and tokenizer.

#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "common/formats/safetensors_writer.h"
#include "common/model/model.h"
#include "common/tensor/dtype_map.h"

namespace weft::testing {

inline constexpr char kSmallConfig[] = R"({"architectures":["LlamaForCausalLM"],
"model_type":"llama","hidden_size":32,"intermediate_size":48,"num_hidden_layers":2,
"num_attention_heads":4,"num_key_value_heads":2,"head_dim":8,"vocab_size":512,
"max_position_embeddings":64,"rms_norm_eps":1e-5,"rope_theta":10000.0,"hidden_act":"silu",
"tie_word_embeddings":true,"bos_token_id":1,"eos_token_id":2,"torch_dtype":"float32",
"initializer_range":0.3})";

/// Writes config.json (and no weights) into the folder.
inline void WriteSmallConfig(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << kSmallConfig;
}

/// The whole folder: configuration, weights from a fixed seed, the example's tokenizer.
inline Status WriteSmallModel(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  WriteSmallConfig(folder);
  WEFT_TRY_ASSIGN(const std::shared_ptr<Model> model, Model::Load(folder, {.init_seed = 3}));
  std::vector<TensorToWrite> tensors;
  const std::vector<NamedTensor> weights = model->AllWeights();
  for (const NamedTensor& weight : weights) {
    tensors.push_back({weight.name, *FromTorch(weight.value.scalar_type()),
                       weight.value.sizes().vec(), BytesOf(weight.value)});
  }
  WEFT_TRY(WriteSafetensors(folder / "model.safetensors", tensors));
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    fs::copy_file(fs::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "model" / name, folder / name,
                  fs::copy_options::overwrite_existing);
  }
  return OkStatus();
}

}  // namespace weft::testing
