// adapter_config.json: what is read as plain LoRA writes itself as a file that is read the same.

#include "common/adapters/peft_config.h"

#include <cmath>

#include "common/base/check.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const Result<PeftConfig> config = ParsePeftConfig(input, "adapter_config.json");
  if (!config.ok()) {
    WEFT_CHECK(config.status().message().starts_with("[peft] adapter_config.json"),
               config.status());
    return;
  }
  const std::string text = PeftConfigText(*config);
  const Result<PeftConfig> again = ParsePeftConfig(text, "adapter_config.json");
  WEFT_CHECK(again.ok(), again.status(), "\n", text);
  WEFT_CHECK(PeftConfigText(*again) == text, text);
  WEFT_CHECK(again->spec.rank == config->spec.rank);
  WEFT_CHECK(again->spec.rank_pattern.size() <= config->spec.rank_pattern.size());
}

Seeds MakeSeeds() {
  PeftConfig config;
  config.base_model = "base";
  config.spec.rank = 4;
  config.spec.alpha = 8;
  config.spec.target_modules = {"q_proj", "v_proj"};
  config.spec.rank_pattern = {{"layers.0.q_proj", 2}, {"v_proj", 1}};
  config.spec.alpha_pattern = {{"v_proj", 0.5}};
  config.spec.layers_to_transform = {0, 1};
  config.spec.layers_pattern = "layers";
  PeftConfig regex = config;
  regex.spec.target_modules.clear();
  regex.spec.target_regex = ".*\\.(q|v)_proj";
  regex.spec.rslora = true;
  return {PeftConfigText(config), PeftConfigText(regex),
          R"({"peft_type":"LORA","target_modules":"all-linear","exclude_modules":"lm_head","r":8})",
          R"({"peft_type":"LORA","target_modules":["q"],"use_dora":true})"};
}

}  // namespace

Target PeftConfigFile() {
  return {"peft_config",
          Run,
          MakeSeeds,
          {"\"layers_pattern\"", "\"init_lora_weights\"", "\"pissa\"", "\"bias\"", "[[", "null"}};
}

}  // namespace weft::fuzz
