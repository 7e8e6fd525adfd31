#pragma once
// BaseDescription: all that the aggregator must know about a base model, which it can do without:
// its hash and the layers an adapter may sit on.

#include <string>
#include <vector>

#include "common/plan/adapter_spec.h"

namespace weft {

struct BaseDescription {
  std::string hash;               // SHA-256 hex, see common/formats/base_hash.h
  std::string architecture;       // HF class name, e.g. "LlamaForCausalLM"
  std::vector<LinearSite> sites;  // every linear layer, in the model's order; its head's last
  friend bool operator==(const BaseDescription&, const BaseDescription&) = default;
};

}  // namespace weft
