#include "common/formats/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "common/base/check.h"

namespace weft {
namespace {

// The (fractional) dimension whose wave turns `rotations` times within the original context; Peng
// et al. 2023, section 3.2.
double DimensionOf(double rotations, const RopeConfig& rope, double dims) {
  const auto context = static_cast<double>(rope.original_positions);
  return dims * std::log(context / (rotations * 2 * std::numbers::pi)) / (2 * std::log(rope.theta));
}

// Dimensions below `low` keep their frequency, those above `high` have it divided by the factor, a
// linear blend between.
void StretchByYarn(const RopeConfig& rope, double dims, std::vector<float>& frequencies) {
  double low = DimensionOf(rope.beta_fast, rope, dims);
  double high = DimensionOf(rope.beta_slow, rope, dims);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, dims - 1);
  if (low == high) high += 0.001;  // a step, yet no division by zero; the same as transformers
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const double ramp = std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    const float keep = 1 - static_cast<float>(ramp);
    const float divided = frequencies[i] / static_cast<float>(rope.factor);
    frequencies[i] = divided * (1 - keep) + frequencies[i] * keep;
  }
}

void StretchByLlama3(const RopeConfig& rope, std::vector<float>& frequencies) {
  const auto context = static_cast<float>(rope.original_positions);
  const auto factor = static_cast<float>(rope.factor);
  const auto low = static_cast<float>(rope.low_freq_factor);
  const auto high = static_cast<float>(rope.high_freq_factor);
  for (float& frequency : frequencies) {
    const float wavelength = 2 * std::numbers::pi_v<float> / frequency;
    if (wavelength < context / high) continue;
    if (wavelength > context / low) {
      frequency /= factor;
      continue;
    }
    const float smooth = (context / wavelength - low) / (high - low);
    frequency = (1 - smooth) * frequency / factor + smooth * frequency;
  }
}

}  // namespace

std::string_view RopeTypeName(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kLlama3:
      return "llama3";
    case RopeType::kYarn:
      return "yarn";
  }
  return "default";
}

std::vector<float> RopeInverseFrequencies(const RopeConfig& rope, int64_t head_dim,
                                          int64_t max_positions, int64_t length) {
  WEFT_CHECK(head_dim > 0 && head_dim % 2 == 0 && max_positions > 0, "head_dim ", head_dim);
  const auto dims = static_cast<double>(head_dim);
  double theta = rope.theta;
  if (rope.type == RopeType::kDynamic && length > max_positions && head_dim > 2) {
    const double ratio = static_cast<double>(length) / static_cast<double>(max_positions);
    theta *= std::pow(rope.factor * ratio - (rope.factor - 1), dims / (dims - 2));
  }
  std::vector<float> frequencies(static_cast<size_t>(head_dim / 2));
  for (size_t i = 0; i < frequencies.size(); ++i) {
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(head_dim);
    frequencies[i] = 1 / std::pow(static_cast<float>(theta), exponent);
  }
  if (rope.type == RopeType::kLinear) {
    for (float& frequency : frequencies) frequency /= static_cast<float>(rope.factor);
  }
  if (rope.type == RopeType::kLlama3) StretchByLlama3(rope, frequencies);
  if (rope.type == RopeType::kYarn) StretchByYarn(rope, dims, frequencies);
  return frequencies;
}

}  // namespace weft
