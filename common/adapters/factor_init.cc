#include "common/adapters/factor_init.h"

#include <cmath>

#include "common/base/random.h"

namespace weft {

// kaiming_uniform's bound is √(6 / ((1 + a²)·in)) = 1/√in for a = √5.
at::Tensor RandomFactorA(int64_t rank, int64_t in, uint64_t seed, std::string_view path,
                         std::string_view name) {
  at::Tensor A_RI = at::empty({rank, in}, at::kFloat);
  RandomStream stream = RandomStream::Derive(seed, {"adapter-init", path, name});
  const double bound = 1.0 / std::sqrt(static_cast<double>(in));
  float* values = A_RI.data_ptr<float>();
  for (int64_t i = 0; i < A_RI.numel(); ++i) {
    values[i] = static_cast<float>((2.0 * stream.Uniform() - 1.0) * bound);
  }
  return A_RI;
}

}  // namespace weft
