#pragma once
// Tiny decoders of every family with random weights, made without any file but config.json.

#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/model/model.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {

inline std::string ConfigOf(const std::string& family) {
  const std::string sizes =
      R"("vocab_size": 31, "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2,
         "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
         "hidden_act": "silu", "rms_norm_eps": 1e-5, "initializer_range": 0.3,
         "rope_theta": 10000.0, "bos_token_id": 1, "eos_token_id": 2, )";
  if (family == "llama") {
    return "{" + sizes + R"("architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "tie_word_embeddings": true})";
  }
  if (family == "llama_bias") {
    return "{" + sizes + R"("architectures": ["LlamaForCausalLM"], "model_type": "llama",
      "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": false})";
  }
  if (family == "mistral") {
    return "{" + sizes + R"("architectures": ["MistralForCausalLM"], "model_type": "mistral",
      "sliding_window": 3, "tie_word_embeddings": false})";
  }
  if (family == "qwen3") {
    return "{" + sizes + R"("architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3",
      "head_dim": 6, "tie_word_embeddings": true})";
  }
  if (family == "bert" || family == "roberta") {
    const std::string name = family == "bert" ? "Bert" : "Roberta";
    return R"({"architectures": [")" + name + R"(ForSequenceClassification"], "vocab_size": 31,
      "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 2, "type_vocab_size": 2,
      "num_attention_heads": 4, "max_position_embeddings": 64, "hidden_act": "gelu",
      "layer_norm_eps": 1e-5, "initializer_range": 0.3, "pad_token_id": 3, "num_labels": 5})";
  }
  return R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 31,
      "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64, "n_inner": 20,
      "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new", "initializer_range": 0.3,
      "bos_token_id": 1, "eos_token_id": 2})";
}

/// A model of this config.json with weights drawn from a seed.
inline std::shared_ptr<Model> TinyModelFrom(const std::string& config, LoadOptions options = {}) {
  const TempFolder folder;
  folder.Write("config.json", config);
  if (!options.init_seed) options.init_seed = 5;
  auto model = Model::Load(folder.path(), options);
  EXPECT_TRUE(model.ok()) << model.status() << config;
  return model.ok() ? *model : nullptr;
}

inline std::shared_ptr<Model> TinyModel(const std::string& family, LoadOptions options = {}) {
  return TinyModelFrom(ConfigOf(family), options);
}

inline at::Tensor Random(at::IntArrayRef shape, uint64_t seed, double scale = 1,
                         at::ScalarType dtype = at::kDouble) {
  at::Tensor value = at::empty(shape, at::kDouble);
  RandomStream stream(seed);
  for (int64_t i = 0; i < value.numel(); ++i) value.data_ptr<double>()[i] = scale * stream.Normal();
  return value.to(dtype);
}

/// Fresh models have zero biases and unit norms, which hide what is done with them: every weight
/// gets random numbers of its own, in place. Norms stay around 1.
inline void Scramble(const Model& model, uint64_t seed, double scale = 0.3) {
  const at::NoGradGuard no_grad;
  for (const NamedTensor& weight : model.AllWeights()) {
    const bool norm = weight.value.dim() == 1 && weight.name.find("bias") == std::string::npos;
    const at::Tensor drawn = Random(weight.value.sizes(), seed++, scale);
    weight.value.copy_(norm ? drawn + 1 : drawn);
  }
}

/// Rows of the given lengths; every second token is labelled.
inline PackedBatch TinyBatch(const std::vector<int64_t>& lengths, uint64_t seed = 9) {
  RandomStream stream(seed);
  std::vector<int64_t> ids, positions, label_at, labels;
  PackedBatch batch;
  batch.row_starts = {0};
  for (int64_t length : lengths) {
    for (int64_t t = 0; t < length; ++t) {
      if (t % 2 == 0) {
        label_at.push_back(static_cast<int64_t>(ids.size()));
        labels.push_back(static_cast<int64_t>(stream.Below(31)));
      }
      ids.push_back(static_cast<int64_t>(stream.Below(31)));
      positions.push_back(t);
    }
    batch.row_starts.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.ids_N = at::tensor(ids, at::kLong);
  batch.positions_N = at::tensor(positions, at::kLong);
  batch.label_at_L = at::tensor(label_at, at::kLong);
  batch.labels_L = at::tensor(labels, at::kLong);
  return batch;
}

/// Two adapters of different ranks: the first on every site and trained, the second on every other
/// site and frozen.
inline AdapterBinding TinyAdapters(const Model& model, at::ScalarType dtype, double dropout = 0) {
  AdapterBinding adapters(2, std::vector<Factors>(model.sites().size()));
  for (size_t i = 0; i < model.sites().size(); ++i) {
    const LinearSite& site = model.sites()[i];
    for (size_t j = 0; j < 2; ++j) {
      if (j == 1 && i % 2 == 1) continue;
      const int64_t rank = j == 0 ? 3 : 2;
      Factors& factors = adapters[j][i];
      factors.low_rank.A_RI = Random({rank, site.in}, 100 * i + j, 0.2, dtype);
      factors.low_rank.B_OR = Random({site.out, rank}, 100 * i + j + 50, 0.2, dtype);
      factors.dropout = j == 0 ? dropout : 0;
      if (j == 0) {
        factors.low_rank.A_RI.requires_grad_(true);
        factors.low_rank.B_OR.requires_grad_(true);
      }
    }
  }
  return adapters;
}

/// |analytic − numeric| over a sample of a tensor's elements, relative to the gradient's size.
template <typename Loss>
void ExpectGradientMatches(const at::Tensor& leaf, const at::Tensor& gradient, const Loss& loss,
                           const std::string& what) {
  const at::NoGradGuard no_grad;
  const at::Tensor flat = leaf.detach().view(-1);
  const double step = 1e-5;
  const double size = gradient.abs().max().item<double>() + 1e-6;
  for (int64_t i = 0; i < flat.numel(); i += std::max<int64_t>(1, flat.numel() / 5)) {
    const double before = flat[i].item<double>();
    flat[i] = before + step;
    const double above = loss();
    flat[i] = before - step;
    const double below = loss();
    flat[i] = before;
    const double numeric = (above - below) / (2 * step);
    EXPECT_NEAR(gradient.reshape(-1)[i].item<double>(), numeric, 2e-5 * size + 1e-7)
        << what << " element " << i;
  }
}

}  // namespace weft::testing
