#pragma once
// adapter_config.json ⇄ AdapterSpec. All that PEFT can say about plain LoRA is read and written;
// variants that compute something else (DoRA, PiSSA, biases …) are refused by name with the reason.

#include <string>
#include <string_view>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"

namespace weft {

struct PeftConfig {
  AdapterSpec spec;
  std::string base_model;               // base_model_name_or_path; may be empty
  std::string task_type = "CAUSAL_LM";  // may be empty
  bool fan_in_fan_out = false;          // GPT-2's Conv1D keeps W transposed; factors do not
};

/// `name` leads errors: "[peft] adapter/adapter_config.json: use_dora: …".
[[nodiscard]] Result<PeftConfig> ParsePeftConfig(std::string_view json, std::string_view name);

/// The file's text, for a spec of method "lora". Only settings that PEFT has long known are
/// written, so old versions load it too.
[[nodiscard]] std::string PeftConfigText(const PeftConfig& config);

}  // namespace weft
