#pragma once
// AdapterSpec: everything that says what an adapter is, before any tensor exists. Plain data;
// travels in plans, updates, files. The words and the matching rules are PEFT's
// (adapter_config.json).

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace weft {

struct AdapterSpec {
  std::string method = "lora";  // a name of the adapter registry
  int64_t rank = 8;
  double alpha = 16;
  bool rslora = false;  // scaling alpha/√r instead of alpha/r (Kalajdzievski 2023)
  double dropout = 0;   // on the adapter branch's input, while training

  // Which linear layers carry the adapter: module names ("q_proj"), dotted suffixes or full paths;
  // or one regular expression that must match the whole path; or the single word "all-linear"
  // (every linear layer but lm_head).
  std::vector<std::string> target_modules;
  std::string target_regex;                  // non-empty: used instead of target_modules
  std::vector<std::string> exclude_modules;  // same matching; wins over target_modules
  std::vector<int64_t> layers_to_transform;  // empty: all layers
  std::string layers_pattern;  // name of the layer list ("layers", "h"); empty: found by itself

  // (suffix or regular expression, value); the first whose pattern matches the end of a site's path
  // wins.
  std::vector<std::pair<std::string, int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;

  std::vector<std::string> modules_to_save;  // whole modules trained and shipped beside the factors

  // Names of the classes by id, where the adapter classifies rows: as many outputs has its head,
  // which modules_to_save names. Empty: it does not.
  std::vector<std::string> labels;

  // Settings only one method knows (NOLA's k, MSPLoRA's tiers …), in the order written.
  std::vector<std::pair<std::string, std::string>> options;

  friend bool operator==(const AdapterSpec&, const AdapterSpec&) = default;
};

/// One linear layer that can carry an adapter: y[out] = W[out×in] · x[in].
struct LinearSite {
  std::string path;  // HF module path, e.g. "model.layers.0.self_attn.q_proj"
  int64_t in = 0;
  int64_t out = 0;

  friend bool operator==(const LinearSite&, const LinearSite&) = default;
};

}  // namespace weft
