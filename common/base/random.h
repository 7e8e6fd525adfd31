#pragma once
// Our own counter-based random streams (Philox4x32-10, Salmon et al., SC 2011): the same seed and
// labels give the same numbers on every machine, in every order of calls, on any number of threads.

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

namespace weft {

/// One Philox4x32-10 block: 128 bits of output for a 128-bit counter under a 64-bit key.
[[nodiscard]] std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter,
                                             std::array<uint32_t, 2> key);

/// A stream of random numbers. A value type: a copy continues from the same place.
class RandomStream {
 public:
  explicit RandomStream(uint64_t key) : key_(key) {}

  /// The stream for a purpose: Derive(seed, {"shuffle", client, "3"}). Labels are length-prefixed,
  /// so
  /// {"ab","c"} and {"a","bc"} differ.
  [[nodiscard]] static RandomStream Derive(uint64_t seed,
                                           std::initializer_list<std::string_view> labels);

  [[nodiscard]] uint64_t key() const { return key_; }
  [[nodiscard]] uint32_t NextU32();
  [[nodiscard]] uint64_t NextU64();
  /// Uniform in [0, bound), without modulo bias; bound must be positive.
  [[nodiscard]] uint64_t Below(uint64_t bound);
  /// Uniform in [0, 1) with 53 bits.
  [[nodiscard]] double Uniform();
  /// Standard normal (Box–Muller).
  [[nodiscard]] double Normal();
  /// Gamma with the given shape and scale 1 (Marsaglia and Tsang, 2000).
  [[nodiscard]] double Gamma(double shape);
  /// A random permutation of 0 … n−1 (Fisher–Yates).
  [[nodiscard]] std::vector<size_t> Permutation(size_t n);

 private:
  uint64_t key_;
  uint64_t block_ = 0;
  std::array<uint32_t, 4> buffer_{};
  unsigned used_ = 4;
};

}  // namespace weft
