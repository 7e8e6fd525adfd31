#include "common/formats/model_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/json_depth.h"
#include "common/base/limits.h"
#include "common/formats/config_fields.h"
#include "common/formats/file_io.h"

namespace weft {
namespace {

using Json = nlohmann::json;

constexpr size_t kConfigBytesMax = size_t{16} << 20;
constexpr int64_t kLayersMax = 4096;
constexpr int64_t kHeadsMax = 4096;
constexpr int64_t kPositionsMax = int64_t{1} << 31;

// A family's names and the defaults of its configuration class in transformers 5.
struct Family {
  ModelFamily family;
  std::string_view architecture;
  std::string_view model_type;
  std::optional<int64_t> num_kv_heads;  // none: num_attention_heads
  std::optional<int64_t> head_dim;      // none: hidden_size / num_attention_heads
  std::optional<int64_t> bos_id;
  std::optional<int64_t> eos_id;
};

constexpr std::array<Family, 7> kFamilies = {{
    {ModelFamily::kLlama, "LlamaForCausalLM", "llama", {}, {}, 1, 2},
    {ModelFamily::kMistral, "MistralForCausalLM", "mistral", 8, {}, 1, 2},
    {ModelFamily::kQwen2, "Qwen2ForCausalLM", "qwen2", 32, {}, {}, {}},
    {ModelFamily::kQwen3, "Qwen3ForCausalLM", "qwen3", 32, 128, {}, {}},
    {ModelFamily::kGpt2, "GPT2LMHeadModel", "gpt2", {}, {}, 50256, 50256},
    {ModelFamily::kBert, "BertForSequenceClassification", "bert", {}, {}, {}, {}},
    {ModelFamily::kRoberta, "RobertaForSequenceClassification", "roberta", {}, {}, 0, 2},
}};

// The same encoder saved with another head, or none.
struct OtherHead {
  std::string_view architecture;
  ModelFamily family;
};
constexpr std::array<OtherHead, 5> kOtherHeads = {{
    {"BertModel", ModelFamily::kBert},
    {"BertForMaskedLM", ModelFamily::kBert},
    {"BertForPreTraining", ModelFamily::kBert},
    {"RobertaModel", ModelFamily::kRoberta},
    {"RobertaForMaskedLM", ModelFamily::kRoberta},
}};

const Family* FamilyOf(std::string_view architecture) {
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return &family;
  }
  for (const OtherHead& other : kOtherHeads) {
    if (other.architecture != architecture) continue;
    for (const Family& family : kFamilies) {
      if (family.family == other.family) return &family;
    }
  }
  return nullptr;
}

std::string Supported() {
  std::string names;
  for (const Family& family : kFamilies) {
    if (!names.empty()) names += ", ";
    names += family.architecture;
  }
  return names;
}

// "architectures" decides; without it "model_type", as transformers' AutoModelForCausalLM does.
Result<const Family*> FindFamily(const ConfigFields& fields) {
  WEFT_TRY_ASSIGN(const auto architectures, fields.Texts("architectures"));
  if (!architectures.empty()) {
    if (const Family* const family = FamilyOf(architectures[0])) return family;
    return fields.Error("architectures", Str("got ", architectures[0].substr(0, 80),
                                             ", wanted one of ", Supported()));
  }
  WEFT_TRY_ASSIGN(const std::string type, fields.Text("model_type", ""));
  for (const Family& family : kFamilies) {
    if (family.model_type == type) return &family;
  }
  if (type.empty()) return fields.Error("architectures", Str("is missing, wanted ", Supported()));
  return fields.Error("model_type",
                      Str("got ", type.substr(0, 80), ", wanted a model of ", Supported()));
}

Result<Activation> ParseActivation(const ConfigFields& fields, std::string_view field,
                                   std::string fallback) {
  WEFT_TRY_ASSIGN(const std::string name, fields.Text(field, std::move(fallback)));
  if (name == "silu" || name == "swish") return Activation::kSilu;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    return Activation::kGeluTanh;
  }
  if (name == "relu") return Activation::kRelu;
  return fields.Error(field, Str("got ", name.substr(0, 80),
                                 ", wanted silu, gelu, gelu_new, gelu_pytorch_tanh or relu"));
}

// Peng et al. 2023, section 3.4; mscale and mscale_all_dim are DeepSeek's generalisation.
Result<double> YarnAttentionFactor(const ConfigFields& fields, double factor) {
  if (fields.Has("attention_factor")) return fields.Number("attention_factor", 1e-6, 1e6);
  const auto scale = [factor](double m) {
    return factor <= 1 ? 1.0 : 0.1 * m * std::log(factor) + 1;
  };
  WEFT_TRY_ASSIGN(const double mscale, fields.Number("mscale", 0, 1e6, 0.0));
  WEFT_TRY_ASSIGN(const double mscale_all, fields.Number("mscale_all_dim", 0, 1e6, 0.0));
  return mscale != 0 && mscale_all != 0 ? scale(mscale) / scale(mscale_all) : scale(1);
}

Status ParseRopeScaling(const ConfigFields& fields, std::string_view type,
                        const ModelConfig& config, RopeConfig& rope) {
  if (type == "linear" || type == "dynamic") {
    rope.type = type == "linear" ? RopeType::kLinear : RopeType::kDynamic;
    WEFT_TRY_ASSIGN(rope.factor, fields.Number("factor", 1e-3, 1e6));
    return OkStatus();
  }
  if (type != "llama3" && type != "yarn") {
    return fields.Error("rope_type", Str("got ", type.substr(0, 80),
                                         ", wanted default, linear, dynamic, llama3 or yarn"));
  }
  if (rope.original_positions == 0) {
    WEFT_TRY_ASSIGN(rope.original_positions, fields.Int("original_max_position_embeddings", 1,
                                                        kPositionsMax, config.max_positions));
  }
  if (type == "llama3") {
    rope.type = RopeType::kLlama3;
    WEFT_TRY_ASSIGN(rope.factor, fields.Number("factor", 1e-3, 1e6));
    WEFT_TRY_ASSIGN(rope.low_freq_factor, fields.Number("low_freq_factor", 1e-3, 1e6));
    WEFT_TRY_ASSIGN(rope.high_freq_factor, fields.Number("high_freq_factor", 1e-3, 1e6));
    if (rope.high_freq_factor > rope.low_freq_factor) return OkStatus();
    return fields.Error("high_freq_factor",
                        Str("got ", rope.high_freq_factor,
                            ", wanted more than low_freq_factor, which is ", rope.low_freq_factor));
  }
  rope.type = RopeType::kYarn;
  const double stretch =
      static_cast<double>(config.max_positions) / static_cast<double>(rope.original_positions);
  WEFT_TRY_ASSIGN(rope.factor, fields.Number("factor", 1e-3, 1e6, stretch));
  WEFT_TRY_ASSIGN(rope.attention_factor, YarnAttentionFactor(fields, rope.factor));
  WEFT_TRY_ASSIGN(rope.beta_fast, fields.Number("beta_fast", 1e-3, 1e6, 32.0));
  WEFT_TRY_ASSIGN(rope.beta_slow, fields.Number("beta_slow", 1e-3, 1e6, 1.0));
  WEFT_TRY_ASSIGN(rope.truncate, fields.Bool("truncate", true));
  if (rope.theta <= 1) {
    return fields.Error("rope_theta", Str("got ", rope.theta, ", yarn wants more than 1"));
  }
  return OkStatus();
}

// 5.x writes rope_parameters {rope_type, rope_theta, …}; 4.x rope_theta beside rope_scaling {type
// or rope_type, …} or null.
Status ParseRope(const ConfigFields& fields, ModelConfig& config) {
  WEFT_TRY_ASSIGN(config.rope.theta, fields.Number("rope_theta", 1e-3, 1e12, 10000.0));
  WEFT_TRY_ASSIGN(auto rope, fields.Object("rope_parameters"));
  if (!rope) {
    WEFT_TRY_ASSIGN(rope, fields.Object("rope_scaling"));
  }
  std::vector<const ConfigFields*> parts = {&fields};
  if (rope) parts.push_back(&*rope);
  for (const ConfigFields* part : parts) {
    WEFT_TRY_ASSIGN(const double share, part->Number("partial_rotary_factor", 0, 1, 1.0));
    if (share != 1) {
      return part->Error("partial_rotary_factor", Str("got ", share, ", only 1 is supported"));
    }
  }
  if (!rope) return OkStatus();
  for (const char* nested : {"full_attention", "sliding_attention"}) {
    if (rope->Has(nested)) return rope->Error(nested, "rope by kind of layer is not supported");
  }
  WEFT_TRY_ASSIGN(config.rope.theta, rope->Number("rope_theta", 1e-3, 1e12, config.rope.theta));
  WEFT_TRY_ASSIGN(const std::string old_type, rope->Text("type", "default"));
  WEFT_TRY_ASSIGN(const std::string type, rope->Text("rope_type", old_type));
  if (type == "default") return OkStatus();
  // Beside the rope's own object this field wins, as in transformers; 0: only the object has it.
  WEFT_TRY_ASSIGN(config.rope.original_positions,
                  fields.Int("original_max_position_embeddings", 1, kPositionsMax, 0));
  return ParseRopeScaling(*rope, type, config, config.rope);
}

// Which layers slide: Mistral all of them; Qwen by layer_types, in files before it those from
// max_window_layers on, where use_sliding_window is set. Llama has no window.
Status ParseWindows(const ConfigFields& fields, ModelConfig& config) {
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), 0);
  const bool qwen = config.family == ModelFamily::kQwen2 || config.family == ModelFamily::kQwen3;
  if (config.family == ModelFamily::kMistral) {
    // Mistral's class says 4096 where the field is absent; null means no window.
    const std::optional<int64_t> fallback =
        fields.HasKey("sliding_window") ? std::nullopt : std::optional<int64_t>(4096);
    if (!fields.Has("sliding_window") && !fallback) return OkStatus();
    WEFT_TRY_ASSIGN(const int64_t window, fields.Int("sliding_window", 1, kPositionsMax, fallback));
    std::fill(config.sliding_window.begin(), config.sliding_window.end(), window);
    return OkStatus();
  }
  if (!qwen) return OkStatus();

  WEFT_TRY_ASSIGN(const bool use, fields.Bool("use_sliding_window", false));
  int64_t window = 0;  // 0: none
  if (use && !(fields.HasKey("sliding_window") && !fields.Has("sliding_window"))) {
    WEFT_TRY_ASSIGN(window, fields.Int("sliding_window", 1, kPositionsMax, 4096));
  }
  WEFT_TRY_ASSIGN(const auto types, fields.Texts("layer_types"));
  if (!types.empty() && types.size() != config.sliding_window.size()) {
    return fields.Error("layer_types", Str("got ", types.size(), " entries, wanted ",
                                           config.num_layers, ", one a layer"));
  }
  WEFT_TRY_ASSIGN(const int64_t first, fields.Int("max_window_layers", 0, kLayersMax, 28));
  for (size_t i = 0; i < config.sliding_window.size(); ++i) {
    bool slides = static_cast<int64_t>(i) >= first;
    if (!types.empty()) {
      if (types[i] != "full_attention" && types[i] != "sliding_attention") {
        return fields.Error("layer_types", Str("got ", types[i].substr(0, 80),
                                               ", wanted full_attention or sliding_attention"));
      }
      slides = types[i] == "sliding_attention";
      if (slides && window == 0) {
        return fields.Error("layer_types",
                            "names sliding_attention, but there is no window: "
                            "use_sliding_window and sliding_window say none");
      }
    }
    if (slides) config.sliding_window[i] = window;
  }
  return OkStatus();
}

Status ParseLlamaLike(const ConfigFields& fields, const Family& family, ModelConfig& config) {
  WEFT_TRY_ASSIGN(config.hidden_size, fields.Int("hidden_size", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(config.intermediate_size,
                  fields.Int("intermediate_size", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(config.num_layers, fields.Int("num_hidden_layers", 1, kLayersMax));
  WEFT_TRY_ASSIGN(config.num_heads, fields.Int("num_attention_heads", 1, kHeadsMax));
  const bool null_kv = fields.HasKey("num_key_value_heads") && !fields.Has("num_key_value_heads");
  WEFT_TRY_ASSIGN(
      config.num_kv_heads,
      fields.Int("num_key_value_heads", 1, kHeadsMax,
                 null_kv ? config.num_heads : family.num_kv_heads.value_or(config.num_heads)));
  if (config.num_heads % config.num_kv_heads != 0) {
    return fields.Error("num_key_value_heads",
                        Str("got ", config.num_kv_heads,
                            ", wanted a divisor of num_attention_heads, ", config.num_heads));
  }
  if (!fields.Has("head_dim") && !family.head_dim && config.hidden_size % config.num_heads != 0) {
    return fields.Error("hidden_size",
                        Str("got ", config.hidden_size,
                            ", wanted a multiple of num_attention_heads, ", config.num_heads));
  }
  WEFT_TRY_ASSIGN(config.head_dim,
                  fields.Int("head_dim", 2, limits::kDimensionMax,
                             family.head_dim.value_or(config.hidden_size / config.num_heads)));
  if (config.head_dim < 2 || config.head_dim % 2 != 0) {
    return fields.Error(
        "head_dim", Str("got ", config.head_dim, ", wanted an even number: rotations turn pairs"));
  }
  WEFT_TRY_ASSIGN(config.max_positions, fields.Int("max_position_embeddings", 1, kPositionsMax));
  WEFT_TRY_ASSIGN(config.norm_eps, fields.Number("rms_norm_eps", 0, 1, 1e-6));
  WEFT_TRY_ASSIGN(config.activation, ParseActivation(fields, "hidden_act", "silu"));
  WEFT_TRY_ASSIGN(config.tie_word_embeddings, fields.Bool("tie_word_embeddings", false));
  // Only Llama and Qwen3 have these settings; Qwen2 always has q, k and v biases, Mistral none.
  const bool has_setting =
      config.family == ModelFamily::kLlama || config.family == ModelFamily::kQwen3;
  if (has_setting) {
    WEFT_TRY_ASSIGN(config.qkv_bias, fields.Bool("attention_bias", false));
    config.o_bias = config.qkv_bias;
  }
  if (config.family == ModelFamily::kLlama) {
    WEFT_TRY_ASSIGN(config.mlp_bias, fields.Bool("mlp_bias", false));
  }
  if (config.family == ModelFamily::kQwen2) config.qkv_bias = true;
  config.qk_norm = config.family == ModelFamily::kQwen3;
  WEFT_TRY(ParseRope(fields, config));
  WEFT_TRY(ParseWindows(fields, config));
  config.attention_scale.assign(static_cast<size_t>(config.num_layers),
                                1 / std::sqrt(static_cast<double>(config.head_dim)));
  return OkStatus();
}

Status ParseGpt2(const ConfigFields& fields, ModelConfig& config) {
  WEFT_TRY_ASSIGN(config.hidden_size, fields.Int("n_embd", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(config.num_layers, fields.Int("n_layer", 1, kLayersMax));
  WEFT_TRY_ASSIGN(config.num_heads, fields.Int("n_head", 1, kHeadsMax));
  if (config.hidden_size % config.num_heads != 0) {
    return fields.Error("n_embd", Str("got ", config.hidden_size, ", wanted a multiple of n_head, ",
                                      config.num_heads));
  }
  config.num_kv_heads = config.num_heads;
  config.head_dim = config.hidden_size / config.num_heads;
  WEFT_TRY_ASSIGN(config.intermediate_size,
                  fields.Int("n_inner", 1, limits::kDimensionMax, 4 * config.hidden_size));
  WEFT_TRY_ASSIGN(config.max_positions, fields.Int("n_positions", 1, kPositionsMax));
  WEFT_TRY_ASSIGN(config.norm_eps, fields.Number("layer_norm_epsilon", 0, 1, 1e-5));
  WEFT_TRY_ASSIGN(config.activation, ParseActivation(fields, "activation_function", "gelu_new"));
  WEFT_TRY_ASSIGN(config.tie_word_embeddings, fields.Bool("tie_word_embeddings", true));
  WEFT_TRY_ASSIGN(const bool cross, fields.Bool("add_cross_attention", false));
  if (cross) return fields.Error("add_cross_attention", "got true, which is not supported");
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), 0);
  WEFT_TRY_ASSIGN(const bool scaled, fields.Bool("scale_attn_weights", true));
  WEFT_TRY_ASSIGN(const bool by_layer, fields.Bool("scale_attn_by_inverse_layer_idx", false));
  for (int64_t i = 0; i < config.num_layers; ++i) {
    const double scale = scaled ? 1 / std::sqrt(static_cast<double>(config.head_dim)) : 1;
    config.attention_scale.push_back(by_layer ? scale / static_cast<double>(i + 1) : scale);
  }
  return OkStatus();
}

// {"0": "negative", "1": "positive"}; without names transformers' own, LABEL_0 and so on.
Status ParseLabels(const ConfigFields& fields, ModelConfig& config) {
  WEFT_TRY_ASSIGN(const auto names, fields.Object("id2label"));
  const std::optional<int64_t> named =
      names ? std::optional(static_cast<int64_t>(names->size())) : std::nullopt;
  WEFT_TRY_ASSIGN(const int64_t count,
                  fields.Int("num_labels", 1, limits::kLabelsMax, named.value_or(2)));
  if (named && *named != count) {
    return fields.Error("id2label",
                        Str("got ", *named, " names, wanted ", count, " as num_labels says"));
  }
  for (int64_t i = 0; i < count; ++i) {
    const std::string id = std::to_string(i);
    std::string name = "LABEL_" + id;
    if (names) {
      WEFT_TRY_ASSIGN(name, names->Text(id));
    }
    config.labels.push_back(std::move(name));
  }
  return OkStatus();
}

Status ParseEncoder(const ConfigFields& fields, ModelConfig& config) {
  WEFT_TRY_ASSIGN(config.hidden_size, fields.Int("hidden_size", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(config.intermediate_size,
                  fields.Int("intermediate_size", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(config.num_layers, fields.Int("num_hidden_layers", 1, kLayersMax));
  WEFT_TRY_ASSIGN(config.num_heads, fields.Int("num_attention_heads", 1, kHeadsMax));
  if (config.hidden_size % config.num_heads != 0) {
    return fields.Error("hidden_size",
                        Str("got ", config.hidden_size,
                            ", wanted a multiple of num_attention_heads, ", config.num_heads));
  }
  config.num_kv_heads = config.num_heads;
  config.head_dim = config.hidden_size / config.num_heads;
  WEFT_TRY_ASSIGN(config.norm_eps, fields.Number("layer_norm_eps", 0, 1, 1e-12));
  WEFT_TRY_ASSIGN(config.activation, ParseActivation(fields, "hidden_act", "gelu"));
  WEFT_TRY_ASSIGN(config.token_types, fields.Int("type_vocab_size", 1, limits::kTokenIdMax, 2));
  WEFT_TRY_ASSIGN(const std::string positions, fields.Text("position_embedding_type", "absolute"));
  if (positions != "absolute") {
    return fields.Error("position_embedding_type",
                        Str("got ", positions.substr(0, 80), ", only absolute is supported"));
  }
  for (const char* of_a_decoder : {"is_decoder", "add_cross_attention"}) {
    WEFT_TRY_ASSIGN(const bool set, fields.Bool(of_a_decoder, false));
    if (set) return fields.Error(of_a_decoder, "got true, which is not supported");
  }
  if (config.family == ModelFamily::kRoberta) {
    WEFT_TRY_ASSIGN(const int64_t padding, fields.Int("pad_token_id", 0, limits::kTokenIdMax, 1));
    config.position_offset = padding + 1;
  }
  WEFT_TRY_ASSIGN(const int64_t table,
                  fields.Int("max_position_embeddings", config.position_offset + 1, kPositionsMax));
  config.max_positions = table - config.position_offset;
  config.qkv_bias = config.o_bias = config.mlp_bias = true;
  config.sliding_window.assign(static_cast<size_t>(config.num_layers), 0);
  config.attention_scale.assign(static_cast<size_t>(config.num_layers),
                                1 / std::sqrt(static_cast<double>(config.head_dim)));
  return ParseLabels(fields, config);
}

Status ParseTokens(const ConfigFields& fields, const Family& family, ModelConfig& config) {
  // Ids above the vocabulary are seen in the wild (padding of enlarged tokenizers) and harmless.
  WEFT_TRY_ASSIGN(const auto bos, fields.Ints("bos_token_id", -1, limits::kTokenIdMax));
  WEFT_TRY_ASSIGN(const auto pad, fields.Ints("pad_token_id", -1, limits::kTokenIdMax));
  WEFT_TRY_ASSIGN(config.eos_ids, fields.Ints("eos_token_id", -1, limits::kTokenIdMax));
  config.bos_id = fields.HasKey("bos_token_id") ? std::nullopt : family.bos_id;
  if (!bos.empty() && bos[0] >= 0) config.bos_id = bos[0];
  if (!pad.empty() && pad[0] >= 0) config.pad_id = pad[0];
  if (!fields.HasKey("eos_token_id") && family.eos_id) config.eos_ids = {*family.eos_id};
  std::erase(config.eos_ids, -1);  // "none" in some older files
  return OkStatus();
}

Status ParseStoredDType(const ConfigFields& fields, ModelConfig& config) {
  WEFT_TRY_ASSIGN(const std::string old_name, fields.Text("torch_dtype", ""));
  WEFT_TRY_ASSIGN(std::string name, fields.Text("dtype", old_name));
  if (name.rfind("torch.", 0) == 0) name = name.substr(6);
  if (name == "float32") config.stored_dtype = DType::kFloat32;
  if (name == "float16") config.stored_dtype = DType::kFloat16;
  if (name == "bfloat16") config.stored_dtype = DType::kBFloat16;
  return OkStatus();  // other words only describe the file; CheckTensors judges the tensors
}

Result<Json> ParseObject(std::string_view text, std::string_view file) {
  if (!JsonDepthWithin(text)) {
    return InvalidArgument(
        Str("[config] ", file, ": nested deeper than ", limits::kJsonNestingMax, " levels"));
  }
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_object()) return json;
  return InvalidArgument(
      Str("[config] ", file, ": ", json.is_discarded() ? "is not JSON" : "wanted a JSON object"));
}

}  // namespace

Result<ModelConfig> ParseModelConfig(std::string_view config_json, std::string_view file,
                                     std::string_view generation_config) {
  WEFT_TRY_ASSIGN(const Json json, ParseObject(config_json, file));
  const ConfigFields fields(&json, Str("[config] ", file));
  WEFT_TRY_ASSIGN(const Family* const family, FindFamily(fields));
  if (fields.Has("quantization_config")) {
    return fields.Error("quantization_config",
                        "quantised weights are not supported, wanted float32, float16 or bfloat16");
  }
  ModelConfig config;
  config.architecture = family->architecture;
  config.family = family->family;
  WEFT_TRY_ASSIGN(config.vocab_size, fields.Int("vocab_size", 1, limits::kTokenIdMax + 1));
  WEFT_TRY_ASSIGN(config.initializer_range, fields.Number("initializer_range", 0, 10, 0.02));
  if (config.family == ModelFamily::kGpt2) {
    WEFT_TRY(ParseGpt2(fields, config));
  } else if (config.is_encoder()) {
    WEFT_TRY(ParseEncoder(fields, config));
  } else {
    WEFT_TRY(ParseLlamaLike(fields, *family, config));
  }
  WEFT_TRY(ParseTokens(fields, *family, config));
  WEFT_TRY(ParseStoredDType(fields, config));
  if (generation_config.empty()) return config;

  const std::string name =
      (std::filesystem::path(file).parent_path() / "generation_config.json").string();
  WEFT_TRY_ASSIGN(const Json generation, ParseObject(generation_config, name));
  const ConfigFields more(&generation, Str("[config] ", name));
  WEFT_TRY_ASSIGN(auto eos_ids, more.Ints("eos_token_id", 0, limits::kTokenIdMax));
  if (!eos_ids.empty()) config.eos_ids = std::move(eos_ids);
  return config;
}

Result<ModelConfig> ReadModelConfig(const std::filesystem::path& folder) {
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) {
    return NotFound(Str("[model] \"", folder.string(), "\" is no folder; wanted a Hugging Face ",
                        "model folder: config.json, safetensors and tokenizer files"));
  }
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path, error)) {
    return NotFound(Str("[model] ", folder.string(), ": holds no config.json; wanted a Hugging ",
                        "Face model folder"));
  }
  WEFT_TRY_ASSIGN(const std::string text, ReadFile(path, kConfigBytesMax));
  std::string generation;
  std::error_code ignored;
  if (std::filesystem::exists(folder / "generation_config.json", ignored)) {
    WEFT_TRY_ASSIGN(generation, ReadFile(folder / "generation_config.json", kConfigBytesMax));
  }
  return ParseModelConfig(text, path.string(), generation);
}

}  // namespace weft
