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
  if (config.is_encoder()) {
    return {{"attention.self.query", hidden, hidden, true},
            {"attention.self.key", hidden, hidden, true},
            {"attention.self.value", hidden, hidden, true},
            {"attention.output.dense", hidden, hidden, true},
            {"intermediate.dense", hidden, inner, true},
            {"output.dense", inner, hidden, true}};
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

std::string_view BodyPrefix(const ModelConfig& config) {
  switch (config.family) {
    case ModelFamily::kGpt2:
      return "transformer.";
    case ModelFamily::kBert:
      return "bert.";
    case ModelFamily::kRoberta:
      return "roberta.";
    default:
      return "model.";
  }
}

std::string BlockPath(const ModelConfig& config, int64_t layer) {
  if (config.is_encoder()) return Str(BodyPrefix(config), "encoder.layer.", layer, ".");
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
  if (config.is_encoder()) {
    // Positions as a table, and what the encoder was pre-trained with: RoBERTa's head has no
    // pooler.
    return EndsWith(name, "embeddings.position_ids") ||
           EndsWith(name, "embeddings.token_type_ids") || name.starts_with("cls.") ||
           name.starts_with("lm_head.") ||
           (config.family == ModelFamily::kRoberta &&
            (name.starts_with("roberta.pooler.") || name.starts_with("pooler.")));
  }
  if (config.family != ModelFamily::kGpt2) return false;
  return EndsWith(name, ".attn.bias") || EndsWith(name, ".attn.masked_bias");
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

std::vector<ExpectedTensor> EncoderTensors(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const std::string body(BodyPrefix(config));
  const std::string embeddings = body + "embeddings.";
  std::vector<ExpectedTensor> tensors = {
      {embeddings + "word_embeddings.weight", {config.vocab_size, hidden}},
      {embeddings + "position_embeddings.weight",
       {config.max_positions + config.position_offset, hidden}},
      {embeddings + "token_type_embeddings.weight", {config.token_types, hidden}}};
  AddLayerNorm(embeddings + "LayerNorm", hidden, tensors);
  const auto linears = BlockLinears(config);
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    const std::string block = BlockPath(config, layer);
    for (size_t i = 0; i < 4; ++i) AddLinear(config, block, linears[i], tensors);
    AddLayerNorm(block + "attention.output.LayerNorm", hidden, tensors);
    for (size_t i = 4; i < linears.size(); ++i) AddLinear(config, block, linears[i], tensors);
    AddLayerNorm(block + "output.LayerNorm", hidden, tensors);
  }
  if (config.family == ModelFamily::kBert) {
    AddLinear(config, body, {"pooler.dense", hidden, hidden, true}, tensors);
  }
  return tensors;
}

// Whole or absent.
Status CheckHead(const ModelConfig& config, const SafetensorsFolder& weights,
                 std::string_view where, std::set<std::string_view>& used) {
  const std::vector<ExpectedTensor> head =
      HeadTensors(config, static_cast<int64_t>(config.labels.size()));
  bool any = false;
  for (const ExpectedTensor& expected : head) any = any || weights.Find(expected.name) != nullptr;
  for (const ExpectedTensor& expected : head) {
    if (!any) break;
    const StoredTensor* const stored = weights.Find(expected.name);
    WEFT_TRY(CheckOne(expected, stored, where));
    used.insert(stored->name);
  }
  return OkStatus();
}

}  // namespace

std::vector<ExpectedTensor> ExpectedTensors(const ModelConfig& config) {
  if (config.is_encoder()) return EncoderTensors(config);
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
  if (config.family == ModelFamily::kBert) {
    sites.push_back({"bert.pooler.dense", config.hidden_size, config.hidden_size});
  }
  return sites;
}

std::vector<LinearSite> HeadSites(const ModelConfig& config) {
  const int64_t hidden = config.hidden_size;
  const auto labels = static_cast<int64_t>(config.labels.size());
  if (config.family == ModelFamily::kBert) return {{"classifier", hidden, labels}};
  if (config.family == ModelFamily::kRoberta) {
    return {{"classifier.dense", hidden, hidden}, {"classifier.out_proj", hidden, labels}};
  }
  return {{"lm_head", hidden, config.vocab_size}};
}

LinearSite OutputHeadSite(const ModelConfig& config) { return HeadSites(config).back(); }

std::vector<ExpectedTensor> HeadTensors(const ModelConfig& config, int64_t labels) {
  std::vector<ExpectedTensor> tensors;
  if (!config.is_encoder()) return tensors;
  std::vector<LinearSite> sites = HeadSites(config);
  sites.back().out = labels;
  for (const LinearSite& site : sites) {
    tensors.push_back({site.path + ".weight", {site.out, site.in}});
    tensors.push_back({site.path + ".bias", {site.out}});
  }
  return tensors;
}

const StoredTensor* FindWeight(const ModelConfig& config, const SafetensorsFolder& weights,
                               std::string_view name) {
  const std::string_view prefix = BodyPrefix(config);
  const auto find = [&](std::string_view full) {
    const StoredTensor* const stored = weights.Find(full);
    if (stored != nullptr || !full.starts_with(prefix)) return stored;
    return weights.Find(full.substr(prefix.size()));
  };
  const StoredTensor* const stored = find(name);
  if (stored != nullptr || !config.is_encoder()) return stored;
  for (const auto& [now, once] : {std::pair("LayerNorm.weight", "LayerNorm.gamma"),
                                  std::pair("LayerNorm.bias", "LayerNorm.beta")}) {
    if (!EndsWith(name, now)) continue;
    return find(Str(name.substr(0, name.size() - std::string_view(now).size()), once));
  }
  return nullptr;
}

Status CheckTensors(const ModelConfig& config, const SafetensorsFolder& weights,
                    std::string_view where) {
  std::set<std::string_view> used;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    const StoredTensor* const stored = FindWeight(config, weights, expected.name);
    WEFT_TRY(CheckOne(expected, stored, where));
    used.insert(stored->name);
  }
  WEFT_TRY(CheckHead(config, weights, where, used));
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
