#include "common/model/generate.h"

#include <algorithm>

#include "common/tensor/guard.h"

namespace weft {
namespace {

Status CheckOptions(const GenerateOptions& options) {
  if (options.max_new_tokens < 0) {
    return InvalidArgument(Str("[generate] max-new-tokens: got ", options.max_new_tokens));
  }
  if (!(options.temperature >= 0) || options.temperature > 1e6) {
    return InvalidArgument(
        Str("[generate] temperature: got ", options.temperature, ", wanted 0 or more"));
  }
  if (!(options.top_p > 0) || options.top_p > 1) {
    return InvalidArgument(Str("[generate] top-p: got ", options.top_p, ", wanted (0, 1]"));
  }
  return OkStatus();
}

Status CheckPrompt(const ModelConfig& config, const std::vector<int64_t>& prompt) {
  if (config.is_encoder()) {
    return InvalidArgument(Str("[generate] ", config.architecture,
                               " classifies rows, it generates no text; name a decoder"));
  }
  if (prompt.empty()) return InvalidArgument("[generate] the prompt has no token");
  for (int64_t id : prompt) {
    if (id < 0 || id >= config.vocab_size) {
      return InvalidArgument(Str("[generate] token ", id, " is outside the model's vocabulary of ",
                                 config.vocab_size, "; is the tokenizer another model's?"));
    }
  }
  if (static_cast<int64_t>(prompt.size()) > config.max_positions) {
    return InvalidArgument(Str("[generate] the prompt has ", prompt.size(),
                               " tokens, the model's context ", config.max_positions));
  }
  return OkStatus();
}

}  // namespace

int64_t SampleToken(const at::Tensor& logits_V, double temperature, double top_p,
                    RandomStream& random) {
  if (temperature == 0) return logits_V.argmax().item<int64_t>();
  const at::Tensor p_V = at::softmax(logits_V.to(at::kCPU, at::kDouble) / temperature, 0);
  const auto [sorted_V, order_V] = p_V.sort(/*stable=*/true, /*dim=*/0, /*descending=*/true);
  const double* const p = sorted_V.const_data_ptr<double>();
  const int64_t* const ids = order_V.const_data_ptr<int64_t>();
  const int64_t count = sorted_V.size(0);
  int64_t kept = 0;
  double mass = 0;
  while (kept < count && (kept == 0 || mass < top_p)) mass += p[kept++];
  double left = random.Uniform() * mass;
  for (int64_t i = 0; i < kept; ++i) {
    left -= p[i];
    if (left < 0) return ids[i];
  }
  return ids[kept - 1];
}

Result<std::vector<int64_t>> Generate(const Model& model, const AdapterBinding& adapters,
                                      const std::vector<int64_t>& prompt,
                                      const GenerateOptions& options, const OnToken& on_token) {
  WEFT_TRY(CheckOptions(options));
  WEFT_TRY(CheckPrompt(model.config(), prompt));
  return Guarded("[generate]", [&]() -> Result<std::vector<int64_t>> {
    RandomStream random = RandomStream::Derive(options.seed, {"generate"});
    const int64_t room = model.config().max_positions - static_cast<int64_t>(prompt.size());
    const int64_t wanted = std::min(options.max_new_tokens, room + 1);
    std::vector<int64_t> made;
    if (wanted <= 0) return made;
    const auto cache = model.NewCache();
    at::Tensor logits_V = model.Step(at::tensor(prompt, at::kLong), *cache, adapters);
    while (true) {
      if (!at::isfinite(logits_V.max()).item<bool>()) {
        return Internal("[generate] the model's logits are not finite; check weights and adapter");
      }
      const int64_t id = SampleToken(logits_V, options.temperature, options.top_p, random);
      made.push_back(id);
      const bool go_on = !on_token || on_token(id);
      const bool stop =
          std::find(options.stop_ids.begin(), options.stop_ids.end(), id) != options.stop_ids.end();
      if (!go_on || stop || static_cast<int64_t>(made.size()) == wanted) return made;
      logits_V = model.Step(at::tensor({id}, at::kLong), *cache, adapters);
    }
  });
}

}  // namespace weft
