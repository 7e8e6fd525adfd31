#pragma once
// Text generation: one sequence, token by token, keys and values kept. Stateless; any thread.

#include <cstdint>
#include <functional>
#include <vector>

#include "common/base/random.h"
#include "common/model/model.h"

namespace weft {

struct GenerateOptions {
  int64_t max_new_tokens = 128;
  double temperature = 0;  // 0: always the most likely token
  double top_p = 1;        // of the probability, the most likely tokens first, that stays in play
  uint64_t seed = 0;
  /// Any of them ends it before max_new_tokens and is part of the result.
  std::vector<int64_t> stop_ids = {};
};

/// Called with each new token; false ends the generation.
using OnToken = std::function<bool(int64_t id)>;

/// The new tokens. kInvalidArgument: an empty prompt, ids outside the vocabulary, options out of
/// range, or a prompt that leaves no room in the model's context (generation ends at the context's
/// end).
[[nodiscard]] Result<std::vector<int64_t>> Generate(const Model& model,
                                                    const AdapterBinding& adapters,
                                                    const std::vector<int64_t>& prompt,
                                                    const GenerateOptions& options,
                                                    const OnToken& on_token = {});

/// Draws from softmax(logits / temperature) cut to the smallest set of tokens that holds top_p of
/// it; temperature 0 takes the largest logit (the first of equal ones).
[[nodiscard]] int64_t SampleToken(const at::Tensor& logits_V, double temperature, double top_p,
                                  RandomStream& random);

}  // namespace weft
