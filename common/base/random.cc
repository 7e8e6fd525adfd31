#include "common/base/random.h"

#include <cmath>
#include <numbers>
#include <numeric>

#include "common/base/check.h"

namespace weft {
namespace {

// splitmix64's finaliser: every input bit moves every output bit.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

uint64_t Absorb(uint64_t state, std::string_view label) {
  state = Mix(state ^ label.size());
  for (const char c : label) state = Mix(state ^ static_cast<unsigned char>(c));
  return state;
}

}  // namespace

std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  constexpr uint64_t kMul0 = 0xD2511F53;
  constexpr uint64_t kMul1 = 0xCD9E8D57;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = kMul0 * counter[0];
    const uint64_t p1 = kMul1 * counter[2];
    counter = {static_cast<uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(p1),
               static_cast<uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(p0)};
    key = {key[0] + 0x9E3779B9u, key[1] + 0xBB67AE85u};
  }
  return counter;
}

RandomStream RandomStream::Derive(uint64_t seed, std::initializer_list<std::string_view> labels) {
  uint64_t state = Mix(seed);
  for (const std::string_view label : labels) state = Absorb(state, label);
  return RandomStream(state);
}

uint32_t RandomStream::NextU32() {
  if (used_ == 4) {
    buffer_ = Philox({static_cast<uint32_t>(block_), static_cast<uint32_t>(block_ >> 32), 0, 0},
                     {static_cast<uint32_t>(key_), static_cast<uint32_t>(key_ >> 32)});
    ++block_;
    used_ = 0;
  }
  return buffer_[used_++];
}

uint64_t RandomStream::NextU64() {
  const uint64_t high = NextU32();
  return (high << 32) | NextU32();
}

uint64_t RandomStream::Below(uint64_t bound) {
  WEFT_CHECK(bound > 0);
  const uint64_t threshold = (0 - bound) % bound;  // values below it would favour small results
  for (;;) {
    const uint64_t draw = NextU64();
    if (draw >= threshold) return draw % bound;
  }
}

double RandomStream::Uniform() { return static_cast<double>(NextU64() >> 11) * 0x1.0p-53; }

double RandomStream::Normal() {
  const double radius = std::sqrt(-2.0 * std::log(1.0 - Uniform()));
  return radius * std::cos(2.0 * std::numbers::pi * Uniform());
}

double RandomStream::Gamma(double shape) {
  WEFT_CHECK(shape > 0, shape);
  if (shape < 1) return Gamma(shape + 1) * std::pow(1.0 - Uniform(), 1.0 / shape);
  const double d = shape - 1.0 / 3.0;
  const double c = 1.0 / std::sqrt(9.0 * d);
  for (;;) {
    const double x = Normal();
    const double v = std::pow(1.0 + c * x, 3);
    if (v <= 0) continue;
    if (std::log(1.0 - Uniform()) < 0.5 * x * x + d - d * v + d * std::log(v)) return d * v;
  }
}

std::vector<size_t> RandomStream::Permutation(size_t n) {
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  for (size_t i = n; i > 1; --i) std::swap(order[i - 1], order[Below(i)]);
  return order;
}

}  // namespace weft
