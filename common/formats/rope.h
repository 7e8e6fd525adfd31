#pragma once
// RopeConfig: rotary position embeddings (Su et al. 2021) and the ways models stretch them. Plain
// data; the frequencies follow transformers' modeling_rope_utils, in float32 as there, since
// position × frequency multiplies every rounding difference by thousands.

#include <cstdint>
#include <string_view>
#include <vector>

namespace weft {

enum class RopeType {
  kDefault,
  kLinear,   // positions divided by factor
  kDynamic,  // NTK-aware: a larger theta for sequences beyond the model's context
  kLlama3,   // low frequencies divided by factor, high ones kept, a blend between
  kYarn,     // Peng et al. 2023
};

[[nodiscard]] std::string_view RopeTypeName(RopeType type);

struct RopeConfig {
  RopeType type = RopeType::kDefault;
  double theta = 10000;
  double factor = 1;
  double low_freq_factor = 1;      // llama3
  double high_freq_factor = 4;     // llama3
  int64_t original_positions = 0;  // llama3, yarn: the context before stretching
  double beta_fast = 32;           // yarn
  double beta_slow = 1;            // yarn
  bool truncate = true;            // yarn: round the range of the blend to whole dimensions
  // Cos and sin are multiplied by this: 1 but for yarn, where it is worked out when reading.
  double attention_factor = 1;
};

/// The head_dim/2 inverse frequencies: position p turns pair i by p·f_i radians. Pairs are (i,
/// i + head_dim/2) in HF's layout. `length` is the longest sequence (largest position + 1) and
/// matters for kDynamic only, where it changes theta once it passes `max_positions`.
[[nodiscard]] std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim,
                                                        int64_t max_positions, int64_t length);

}  // namespace weft
