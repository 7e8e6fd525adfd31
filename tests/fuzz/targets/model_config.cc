// config.json (and generation_config.json): a configuration that is accepted can be laid out and
// its rotation computed.

#include <cmath>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/formats/model_layout.h"
#include "common/formats/rope.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 2);
  const Result<ModelConfig> config = ParseModelConfig(parts[0], "config.json", parts[1]);
  if (!config.ok()) {
    WEFT_CHECK(config.status().message().starts_with("[config] "), config.status());
    return;
  }
  WEFT_CHECK(config->num_heads % config->num_kv_heads == 0);
  WEFT_CHECK(config->sliding_window.size() == static_cast<size_t>(config->num_layers));
  WEFT_CHECK(config->attention_scale.size() == static_cast<size_t>(config->num_layers));
  for (const int64_t id : config->eos_ids) WEFT_CHECK(id >= 0 && id <= limits::kTokenIdMax, id);
  for (const LinearSite& site : LinearSites(*config)) {
    WEFT_CHECK(site.in > 0 && site.out > 0, site.path);
  }
  for (const ExpectedTensor& tensor : ExpectedTensors(*config)) {
    for (const int64_t side : tensor.shape) WEFT_CHECK(side > 0, tensor.name);
  }
  if (!config->uses_rope()) return;
  for (const int64_t length : {int64_t{1}, config->max_positions, 2 * config->max_positions}) {
    for (const float frequency :
         RopeInverseFrequencies(config->rope, config->head_dim, config->max_positions, length)) {
      WEFT_CHECK(std::isfinite(frequency) && frequency >= 0, frequency);
    }
  }
}

Seeds MakeSeeds() {
  const std::string llama =
      R"({"architectures":["LlamaForCausalLM"],"hidden_size":8,"intermediate_size":16,)"
      R"("num_hidden_layers":2,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":32,)"
      R"("max_position_embeddings":64,"rms_norm_eps":1e-5,"bos_token_id":1,"eos_token_id":[2,3],)";
  Seeds seeds = {Joined({llama + R"("rope_theta":5e5})", R"({"eos_token_id":[2]})"})};
  for (const char* rope :
       {R"({"rope_type":"llama3","factor":8,"low_freq_factor":1,"high_freq_factor":4,)"
        R"("original_max_position_embeddings":32})",
        R"({"type":"yarn","factor":4,"original_max_position_embeddings":32,"mscale":0.7})",
        R"({"type":"dynamic","factor":2})", R"({"rope_type":"linear","factor":2})"}) {
    seeds.push_back(llama + R"("rope_scaling":)" + rope + "}");
  }
  seeds.emplace_back(
      R"({"model_type":"gpt2","n_embd":8,"n_head":2,"n_layer":2,"n_positions":16,"vocab_size":32})");
  seeds.push_back(R"({"architectures":["Qwen2ForCausalLM"],"layer_types":["full_attention",)"
                  R"("sliding_attention"],"use_sliding_window":true,"sliding_window":4,)" +
                  llama.substr(1) + R"("dtype":"bfloat16","tie_word_embeddings":true})");
  return seeds;
}

}  // namespace

Target ModelConfigFile() {
  return {"model_config",
          Run,
          MakeSeeds,
          {"\"head_dim\"", "\"rope_parameters\"", "null", "1e308", "-1", "4194303", "[[", "true"}};
}

}  // namespace weft::fuzz
