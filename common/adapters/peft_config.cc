#include "common/adapters/peft_config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "common/adapters/match.h"
#include "common/base/json_depth.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;  // the order of rank_pattern decides which pattern wins

// Settings that change nothing about what a stored plain LoRA computes.
constexpr std::array kInert = {"auto_mapping",      "eva_config",        "inference_mode",
                               "megatron_core",     "peft_version",      "revision",
                               "qalora_group_size", "init_lora_weights", "loftq_config",
                               "corda_config",      "lora_ga_config",    "runtime_config"};

// Settings read below.
constexpr std::array kRead = {
    "peft_type",    "task_type",           "base_model_name_or_path", "r",
    "lora_alpha",   "lora_dropout",        "fan_in_fan_out",          "bias",
    "use_rslora",   "target_modules",      "exclude_modules",         "modules_to_save",
    "rank_pattern", "layers_to_transform", "layers_pattern",          "alpha_pattern",
    "labels"};

struct Refusal {
  std::string_view key;
  std::string_view reason;
};

// Settings whose meaning is another computation, or tensors that are no factors of a linear layer.
constexpr std::array kRefused = {
    Refusal{"use_dora", "DoRA's magnitude vectors are not plain LoRA"},
    Refusal{"lora_bias", "a bias beside B is not low-rank"},
    Refusal{"layer_replication", "the base model's layers would be repeated"},
    Refusal{"trainable_token_indices", "single rows of the embedding are trained"},
    Refusal{"target_parameters", "parameters that belong to no linear layer are adapted"},
    Refusal{"alora_invocation_tokens", "aLoRA switches on in the middle of a row"},
    Refusal{"use_qalora", "QALoRA pools the layer's input"},
    Refusal{"use_bdlora", "BD-LoRA's factors are block-diagonal"},
    Refusal{"arrow_config", "Arrow routes between several adapters"},
    Refusal{"kasa_config", "KaSA changes the base weights"},
    Refusal{"monteclora_config", "MonteCLoRA samples its factors"},
    Refusal{"velora_config", "VeLoRA compresses activations"},
    Refusal{"megatron_config", "Megatron's parallel layers are not supported"},
    Refusal{"ensure_weight_tying", "tied adapters share tensors between layers"}};

// Initialisations that take something out of the base weights: the adapter is relative to a base
// that is not the folder's.
constexpr std::array kBaseChangingInits = {"pissa", "olora", "corda", "loftq", "lora_ga"};
// Initialisations that leave the base as it is: once trained, nothing of them is left to know.
constexpr std::array kHarmlessInits = {"gaussian", "eva", "orthogonal"};

std::string Lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

bool Means(const Json& value) {  // null, false and empty mean "not used"
  if (value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_array() || value.is_object()) return !value.empty();
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return true;
}

template <size_t N>
bool Contains(const std::array<const char*, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

class Reader {
 public:
  Reader(const Json& json, std::string_view name) : json_(json), name_(name) {}

  Result<PeftConfig> Run() {
    WEFT_TRY(CheckKeys());
    WEFT_TRY(CheckInit());
    PeftConfig config;
    AdapterSpec& spec = config.spec;
    std::string bias = "none";
    WEFT_TRY(Text("base_model_name_or_path", config.base_model));
    config.task_type.clear();
    WEFT_TRY(Text("task_type", config.task_type));
    WEFT_TRY(Flag("fan_in_fan_out", config.fan_in_fan_out));
    WEFT_TRY(Text("bias", bias));
    if (bias != "none") return Wrong("bias", "\"" + bias + "\": trained biases are not low-rank");
    WEFT_TRY(Integer("r", spec.rank));
    spec.alpha = 8;  // PEFT's default
    WEFT_TRY(Number("lora_alpha", spec.alpha));
    WEFT_TRY(Number("lora_dropout", spec.dropout));
    WEFT_TRY(Flag("use_rslora", spec.rslora));
    WEFT_TRY(Targets(spec));
    WEFT_TRY(Exclusions(spec));
    WEFT_TRY(Layers(spec));
    WEFT_TRY(Names("modules_to_save", spec.modules_to_save));
    WEFT_TRY(Names("labels", spec.labels));  // ours; PEFT passes it over with a warning
    WEFT_TRY(Patterns(spec));
    return config;
  }

 private:
  Status Wrong(std::string_view key, const std::string& what) const {
    return InvalidArgument(Str("[peft] ", name_, ": ", key, ": ", what));
  }

  // Null when absent or null.
  const Json* Find(const char* key) const {
    const auto found = json_.find(key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }

  Status CheckKeys() const {
    for (const auto& [key, value] : json_.items()) {
      if (!Means(value) || Contains(kInert, key) || Contains(kRead, key)) continue;
      for (const Refusal& refusal : kRefused) {
        if (refusal.key == key) {
          return Wrong(key, Str("not supported: ", refusal.reason,
                                "; merge the adapter into its base with PEFT instead"));
        }
      }
      return Wrong(key, "unknown setting with a value; this reader knows plain LoRA only");
    }
    const Json* type = Find("peft_type");
    if (type == nullptr || *type != "LORA") {
      return Wrong("peft_type",
                   Str(type == nullptr ? "missing" : type->dump(), ", wanted \"LORA\""));
    }
    return OkStatus();
  }

  Status CheckInit() const {
    const Json* init = Find("init_lora_weights");
    if (init == nullptr || init->is_boolean()) return OkStatus();
    if (!init->is_string()) return Wrong("init_lora_weights", "wanted a boolean or a name");
    const std::string name = init->get<std::string>();
    const std::string lower = Lower(name);
    for (const std::string_view changing : kBaseChangingInits) {
      if (lower.starts_with(changing)) {
        return Wrong("init_lora_weights",
                     "\"" + name +
                         "\" changes the base weights; convert the adapter with PEFT's "
                         "save_pretrained(path_initial_model_for_weight_conversion=…)");
      }
    }
    if (Contains(kHarmlessInits, lower)) return OkStatus();
    return Wrong("init_lora_weights",
                 "\"" + name +
                     "\" is not known here, and may have changed the base weights; merge the "
                     "adapter into its base with PEFT instead");
  }

  Status Text(const char* key, std::string& into) const {
    const Json* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_string()) return Wrong(key, value->dump() + ", wanted a string");
    into = value->get<std::string>();
    return OkStatus();
  }

  Status Flag(const char* key, bool& into) const {
    const Json* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_boolean()) return Wrong(key, value->dump() + ", wanted true or false");
    into = value->get<bool>();
    return OkStatus();
  }

  Status ToInteger(std::string_view key, const Json& value, int64_t& into) const {
    if (!value.is_number_integer() ||
        (value.is_number_unsigned() &&
         value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()})) {
      return Wrong(key, value.dump() + ", wanted a whole number");
    }
    into = value.get<int64_t>();
    return OkStatus();
  }

  Status Integer(const char* key, int64_t& into) const {
    const Json* value = Find(key);
    return value == nullptr ? OkStatus() : ToInteger(key, *value, into);
  }

  Status Number(const char* key, double& into) const {
    const Json* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_number()) return Wrong(key, value->dump() + ", wanted a number");
    into = value->get<double>();
    return OkStatus();
  }

  Status Names(const char* key, std::vector<std::string>& into) const {
    const Json* value = Find(key);
    if (value == nullptr) return OkStatus();
    if (!value->is_array()) return Wrong(key, value->dump() + ", wanted a list of names");
    if (value->size() > limits::kSitesMax) return Wrong(key, "too many names");
    for (const Json& item : *value) {
      if (!item.is_string()) return Wrong(key, item.dump() + ", wanted a name");
      into.push_back(item.get<std::string>());
    }
    return OkStatus();
  }

  Status Targets(AdapterSpec& spec) const {
    const Json* value = Find("target_modules");
    if (value == nullptr) {
      return Wrong("target_modules", "missing; PEFT would choose by architecture, name the layers");
    }
    if (!value->is_string()) return Names("target_modules", spec.target_modules);
    std::string text = value->get<std::string>();
    if (Lower(text) == "all-linear") {
      spec.target_modules = {"all-linear"};
    } else {
      spec.target_regex = std::move(text);
    }
    return OkStatus();
  }

  Status Exclusions(AdapterSpec& spec) const {
    const Json* value = Find("exclude_modules");
    if (value == nullptr) return OkStatus();
    if (!value->is_string()) return Names("exclude_modules", spec.exclude_modules);
    if (!value->get_ref<const std::string&>().empty()) {
      spec.options.emplace_back(kExcludeRegexOption, value->get<std::string>());
    }
    return OkStatus();
  }

  Status Layers(AdapterSpec& spec) const {
    if (const Json* layers = Find("layers_to_transform"); layers != nullptr) {
      const Json list = layers->is_array() ? *layers : Json::array({*layers});
      for (const Json& item : list) {
        int64_t layer = 0;
        WEFT_TRY(ToInteger("layers_to_transform", item, layer));
        spec.layers_to_transform.push_back(layer);
      }
    }
    const Json* pattern = Find("layers_pattern");
    if (pattern == nullptr) return OkStatus();
    if (pattern->is_string()) {
      spec.layers_pattern = pattern->get<std::string>();
      return OkStatus();
    }
    std::vector<std::string> names;
    WEFT_TRY(Names("layers_pattern", names));
    for (const std::string& name : names) {
      spec.layers_pattern += (spec.layers_pattern.empty() ? "" : ",") + name;
    }
    return OkStatus();
  }

  Status Patterns(AdapterSpec& spec) const {
    if (const Json* ranks = Find("rank_pattern"); ranks != nullptr) {
      if (!ranks->is_object()) return Wrong("rank_pattern", "wanted an object of name: rank");
      for (const auto& [key, value] : ranks->items()) {
        int64_t rank = 0;
        WEFT_TRY(ToInteger("rank_pattern \"" + key + "\"", value, rank));
        spec.rank_pattern.emplace_back(key, rank);
      }
    }
    if (const Json* alphas = Find("alpha_pattern"); alphas != nullptr) {
      if (!alphas->is_object()) return Wrong("alpha_pattern", "wanted an object of name: alpha");
      for (const auto& [key, value] : alphas->items()) {
        if (!value.is_number()) {
          return Wrong("alpha_pattern \"" + key + "\"", value.dump() + ", wanted a number");
        }
        spec.alpha_pattern.emplace_back(key, value.get<double>());
      }
    }
    return OkStatus();
  }

  const Json& json_;
  std::string_view name_;
};

// PEFT declares alpha as an integer and writes one; 16.0 stays 16.
Json AlphaJson(double alpha) {
  if (alpha == std::floor(alpha) && std::abs(alpha) < 1e15) {
    return static_cast<int64_t>(alpha);
  }
  return alpha;
}

Json ListOrNull(const std::vector<std::string>& names) {
  return names.empty() ? Json(nullptr) : Json(names);
}

Json LayersPattern(const std::string& pattern) {
  if (pattern.empty()) return nullptr;
  if (pattern.find(',') == std::string::npos) return pattern;
  Json list = Json::array();
  for (size_t start = 0; start <= pattern.size();) {
    const size_t comma = std::min(pattern.find(',', start), pattern.size());
    list.push_back(pattern.substr(start, comma - start));
    start = comma + 1;
  }
  return list;
}

Json Exclusions(const AdapterSpec& spec) {
  const std::string* const regex = FindOption(spec, kExcludeRegexOption);
  return regex == nullptr ? ListOrNull(spec.exclude_modules) : Json(*regex);
}

}  // namespace

Result<PeftConfig> ParsePeftConfig(std::string_view json, std::string_view name) {
  if (!JsonDepthWithin(json)) {
    return InvalidArgument(
        Str("[peft] ", name, ": nested deeper than ", limits::kJsonNestingMax, " levels"));
  }
  const Json parsed = Json::parse(json.begin(), json.end(), nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded() || !parsed.is_object()) {
    return InvalidArgument(Str("[peft] ", name, ": no JSON object"));
  }
  return Reader(parsed, name).Run();
}

std::string PeftConfigText(const PeftConfig& config) {
  const AdapterSpec& spec = config.spec;
  const bool all_linear = spec.target_modules.size() == 1 && spec.target_modules[0] == "all-linear";
  Json json;
  json["alpha_pattern"] = Json::object();
  for (const auto& [key, alpha] : spec.alpha_pattern) {
    if (!json["alpha_pattern"].contains(key)) json["alpha_pattern"][key] = AlphaJson(alpha);
  }
  json["auto_mapping"] = nullptr;
  json["base_model_name_or_path"] =
      config.base_model.empty() ? Json(nullptr) : Json(config.base_model);
  json["bias"] = "none";
  json["exclude_modules"] = Exclusions(spec);
  json["fan_in_fan_out"] = config.fan_in_fan_out;
  json["inference_mode"] = true;
  json["init_lora_weights"] = true;
  if (!spec.labels.empty()) json["labels"] = spec.labels;
  json["layers_pattern"] = LayersPattern(spec.layers_pattern);
  json["layers_to_transform"] =
      spec.layers_to_transform.empty() ? Json(nullptr) : Json(spec.layers_to_transform);
  json["lora_alpha"] = AlphaJson(spec.alpha);
  json["lora_dropout"] = spec.dropout;
  json["modules_to_save"] = ListOrNull(spec.modules_to_save);
  json["peft_type"] = "LORA";
  json["r"] = spec.rank;
  json["rank_pattern"] = Json::object();
  for (const auto& [key, rank] : spec.rank_pattern) {
    if (!json["rank_pattern"].contains(key)) json["rank_pattern"][key] = rank;
  }
  json["revision"] = nullptr;
  if (!spec.target_regex.empty()) {
    json["target_modules"] = spec.target_regex;
  } else if (all_linear) {
    json["target_modules"] = "all-linear";
  } else {
    json["target_modules"] = spec.target_modules;
  }
  json["task_type"] = config.task_type.empty() ? Json(nullptr) : Json(config.task_type);
  json["use_rslora"] = spec.rslora;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace weft
