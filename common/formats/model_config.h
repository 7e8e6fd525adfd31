#pragma once
// ModelConfig: what an HF config.json says about a model, in the words the forward pass needs.
// Plain data; both dialects of transformers are read (4.x: rope_theta, rope_scaling, torch_dtype;
// 5.x: rope_parameters, dtype, layer_types). Absent fields take the defaults of transformers'
// configuration classes; what cannot be computed right is refused by name.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/formats/rope.h"
#include "common/plan/dtype.h"

namespace weft {

enum class ModelFamily {
  kLlama,    // LlamaForCausalLM: Llama 2 and 3, SmolLM2
  kMistral,  // MistralForCausalLM: Llama with a sliding window
  kQwen2,    // Qwen2ForCausalLM: biases on q, k, v
  kQwen3,    // Qwen3ForCausalLM: RMS norms on each head of q and k, own head_dim
  kGpt2,     // GPT2LMHeadModel: learned positions, LayerNorm, one product for q, k, v
  // Encoders, read as their …ForSequenceClassification whatever head they were saved with.
  kBert,     // BertForSequenceClassification: token types, pooler below the head
  kRoberta,  // RobertaForSequenceClassification: BERT with positions behind the padding's
};

enum class Activation {
  kSilu,      // x·σ(x): "silu", "swish"
  kGelu,      // x·Φ(x): "gelu"
  kGeluTanh,  // tanh approximation: "gelu_new", "gelu_pytorch_tanh", "gelu_fast"
  kRelu,
};

struct ModelConfig {
  std::string architecture;  // HF class name, e.g. "LlamaForCausalLM"
  ModelFamily family = ModelFamily::kLlama;

  int64_t vocab_size = 0;
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_layers = 0;
  int64_t num_heads = 0;     // of queries
  int64_t num_kv_heads = 0;  // of keys and values; divides num_heads
  int64_t head_dim = 0;  // q has num_heads × head_dim features, which may differ from hidden_size
  int64_t max_positions = 0;  // the model's context in tokens

  double norm_eps = 0;  // RMSNorm's; GPT-2's and the encoders': LayerNorm's
  Activation activation = Activation::kSilu;
  bool tie_word_embeddings = false;  // the output head is the token embedding
  bool qkv_bias = false;
  bool o_bias = false;    // of the attention's output projection
  bool mlp_bias = false;  // of all linear layers of the MLP
  bool qk_norm = false;   // RMSNorm over head_dim on each query and key head, before the rotation

  // Per layer: token t attends to (t − window, t]; 0: to all of (−∞, t].
  std::vector<int64_t> sliding_window;
  // Per layer: factor of q·k before the softmax (1/√head_dim unless GPT-2's settings say
  // otherwise).
  std::vector<double> attention_scale;
  RopeConfig rope;  // unused by GPT-2 and the encoders

  // Of encoders.
  int64_t token_types = 0;          // kinds of text in a row: first, second
  int64_t position_offset = 0;      // rows of the position table before a text's first token
  std::vector<std::string> labels;  // names of the classes by id, from id2label or num_labels

  std::optional<int64_t> bos_id;
  std::optional<int64_t> pad_id;
  // Generation stops at any of these: generation_config.json's where it has them, else
  // config.json's. (Training appends the tokenizer's eos, not these.)
  std::vector<int64_t> eos_ids;
  double initializer_range = 0.02;    // standard deviation of fresh weights
  std::optional<DType> stored_dtype;  // of the weights on disk, as the file claims

  /// Reads a row in both directions and gives it a class, instead of predicting the next token.
  [[nodiscard]] bool is_encoder() const {
    return family == ModelFamily::kBert || family == ModelFamily::kRoberta;
  }
  [[nodiscard]] bool uses_rope() const { return family != ModelFamily::kGpt2 && !is_encoder(); }
  /// The MLP multiplies a gate into its up projection (SwiGLU).
  [[nodiscard]] bool is_gated() const { return uses_rope(); }
};

/// Reads config.json and, where there is one, generation_config.json of a model folder. kNotFound:
/// no config.json; kInvalidArgument: no JSON, an unsupported architecture (the supported ones are
/// listed), a needed field missing, of the wrong type or out of range, settings that are not
/// supported (quantised weights, partial rotation, a rope type); each names file and field.
[[nodiscard]] Result<ModelConfig> ReadModelConfig(const std::filesystem::path& folder);

/// The same from text; `file` stands in errors. `generation_config` may be empty.
[[nodiscard]] Result<ModelConfig> ParseModelConfig(std::string_view config_json,
                                                   std::string_view file,
                                                   std::string_view generation_config = {});

}  // namespace weft
