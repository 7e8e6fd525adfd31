#include "common/formats/model_layout.h"

#include <set>
#include <utility>

namespace weft {
namespace {

bool EndsWith(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

// A linear layer below a block, "self_attn.q_proj", and whether it has a bias.
struct BlockLinear {
  std::string_view path;
  int64_t in;
  int64_t out;
  bool bias;
};

std::vector<BlockLinear> BlockLinears(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const int64_t inner = config.intermediate_size;
  if (config.family == ModelFamily::kGpt2) {
    return {{"attn.c_attn", hidden, 3 * hidden, config.qkv_bias},
            {"attn.c_proj", hidden, hidden, config.o_bias},
            {"mlp.c_fc", hidden, inner, config.mlp_bias},
            {"mlp.c_proj", inner, hidden, config.mlp_bias}};
  }
  const int64_t queries = config.num_heads * config.head_dim;
  const int64_t keys = config.num_kv_heads * config.head_dim;
  return {{"self_attn.q_proj", hidden, queries, config.qkv_bias},
          {"self_attn.k_proj", hidden, keys, config.qkv_bias},
          {"self_attn.v_proj", hidden, keys, config.qkv_bias},
          {"self_attn.o_proj", queries, hidden, config.o_bias},
          {"mlp.gate_proj", hidden, inner, config.mlp_bias},
          {"mlp.up_proj", hidden, inner, config.mlp_bias},
          {"mlp.down_proj", inner, hidden, config.mlp_bias}};
}

std::string BlockPath(const ModelConfig& config, int64_t layer) {
  return Str(config.family == ModelFamily::kGpt2 ? "transformer.h." : "model.layers.", layer, ".");
}

void AddLinear(const ModelConfig& config, const std::string& block, const BlockLinear& linear,
               std::vector<ExpectedTensor>& tensors) {
  const bool transposed = config.family == ModelFamily::kGpt2;
  const std::string path = Str(block, linear.path);
  tensors.push_back({path + ".weight", transposed ? std::vector{linear.in, linear.out}
                                                  : std::vector{linear.out, linear.in}});
  if (linear.bias) tensors.push_back({path + ".bias", {linear.out}});
}

void AddLayerNorm(const std::string& path, int64_t size, std::vector<ExpectedTensor>& tensors) {
  tensors.push_back({path + ".weight", {size}});
  tensors.push_back({path + ".bias", {size}});
}

// Buffers that some versions of transformers saved among the weights.
bool IsKnownBuffer(const ModelConfig& config, std::string_view name) {
  if (EndsWith(name, ".rotary_emb.inv_freq")) return true;
  if (config.family != ModelFamily::kGpt2) return false;
  return EndsWith(name, ".attn.bias") || EndsWith(name, ".attn.masked_bias");
}

std::string_view BodyPrefix(const ModelConfig& config) {
  return config.family == ModelFamily::kGpt2 ? "transformer." : "model.";
}

Status CheckOne(const ExpectedTensor& expected, const StoredTensor* stored,
                std::string_view where) {
  const auto error = [&](const std::string& message) {
    return InvalidArgument(Str("[model] ", where, ": tensor ", expected.name, ": ", message));
  };
  if (stored == nullptr) {
    return NotFound(Str("[model] ", where, ": tensor ", expected.name,
                        " is missing, config.json asks for it as ", ShapeText(expected.shape)));
  }
  if (stored->shape != expected.shape) {
    return error(Str("got ", ShapeText(stored->shape), ", config.json asks for ",
                     ShapeText(expected.shape)));
  }
  if (stored->dtype != DType::kFloat32 && stored->dtype != DType::kFloat16 &&
      stored->dtype != DType::kBFloat16) {
    return error(Str("got ", DTypeName(stored->dtype), ", wanted F32, F16 or BF16"));
  }
  return OkStatus();
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const bool gpt2 = config.family == ModelFamily::kGpt2;
  std::vector<ExpectedTensor> tensors;
  tensors.push_back(
      {gpt2 ? "transformer.wte.weight" : "model.embed_tokens.weight", {config.vocab_size, hidden}});
  if (gpt2) tensors.push_back({"transformer.wpe.weight", {config.max_positions, hidden}});
  const auto linears = BlockLinears(config);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string block = BlockPath(config, layer);
    if (gpt2) {
      AddLayerNorm(block + "ln_1", hidden, tensors);
      AddLinear(config, block, linears[0], tensors);
      AddLinear(config, block, linears[1], tensors);
      AddLayerNorm(block + "ln_2", hidden, tensors);
      AddLinear(config, block, linears[2], tensors);
      AddLinear(config, block, linears[3], tensors);
      continue;
    }
    tensors.push_back({block + "input_layernorm.weight", {hidden}});
    for (size_t i = 0; i < 4; ++i) AddLinear(config, block, linears[i], tensors);
    if (config.qk_norm) {
      tensors.push_back({block + "self_attn.q_norm.weight", {config.head_dim}});
      tensors.push_back({block + "self_attn.k_norm.weight", {config.head_dim}});
    }
    tensors.push_back({block + "post_attention_layernorm.weight", {hidden}});
    for (size_t i = 4; i < linears.size(); ++i) AddLinear(config, block, linears[i], tensors);
  }
  if (gpt2) {
    AddLayerNorm("transformer.ln_f", hidden, tensors);
  } else {
    tensors.push_back({"model.norm.weight", {hidden}});
  }
  if (!config.tie_word_embeddings) {
    tensors.push_back({"lm_head.weight", {config.vocab_size, hidden}});
  }
  return tensors;
}

std::vector<LinearSite> LinearSites(const ModelConfig& config) {
  std::vector<LinearSite> sites;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    for (const BlockLinear& linear : BlockLinears(config)) {
      sites.push_back({Str(BlockPath(config, layer), linear.path), linear.in, linear.out});
    }
  }
  return sites;
}

LinearSite OutputHeadSite(const ModelConfig& config) {
  return {"lm_head", config.hidden_size, config.vocab_size};
}

const StoredTensor* FindWeight(const ModelConfig& config, const SafetensorsFolder& weights,
                               std::string_view name) {
  const StoredTensor* const stored = weights.Find(name);
  const std::string_view prefix = BodyPrefix(config);
  if (stored != nullptr || name.substr(0, prefix.size()) != prefix) return stored;
  return weights.Find(name.substr(prefix.size()));
}

Status CheckTensors(const ModelConfig& config, const SafetensorsFolder& weights,
                    std::string_view where) {
  std::set<std::string_view> used;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    const StoredTensor* const stored = FindWeight(config, weights, expected.name);
    WEFT_TRY(CheckOne(expected, stored, where));
    used.insert(stored->name);
  }
  for (const StoredTensor& stored : weights.tensors()) {
    if (used.count(stored.name) || IsKnownBuffer(config, stored.name)) continue;
    if (config.tie_word_embeddings && stored.name == "lm_head.weight") continue;
    return InvalidArgument(Str("[model] ", where, ": tensor ", stored.name, " ",
                               ShapeText(stored.shape), " is none that ", config.architecture,
                               " with this config.json has"));
  }
  return OkStatus();
}

}  // namespace weft
