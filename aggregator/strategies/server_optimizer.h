#pragma once
// Server optimisers (Reddi et al. 2021; spec/aggregation.md 5): the global adapter does not jump to
// what a round asks for, but follows it with a memory. d is that change, the pseudo-gradient;
// m = β₁m + (1−β₁)d, or βm + d for "momentum"; v from d²; step lr·m/(√v + τ), without bias
// correction.
//
// Where one factor is frozen the squares are element-wise. Where the basis changes from round to
// round that would depend on it, so m is kept as a product and v is one number a site,
// ‖D‖²_F/(O·I).

#include <optional>

#include "aggregator/algebra.h"
#include "common/config/settings.h"

namespace weft {

/// m, v and τ of one tensor. Undefined before the first step.
struct Moments {
  at::Tensor m;
  at::Tensor v;
};

/// One step for the change d, of any shape; float64. `tau` is absolute. v starts at τ²; adagrad
/// takes d in place of m.
[[nodiscard]] at::Tensor OptimizerStep(const ServerOptimizerSettings& settings, double tau,
                                       const at::Tensor& d, Moments& moments);

/// Element-wise on a factor's change; `memory` is what the last round left of this site, replaced
/// by what the next one needs.
[[nodiscard]] at::Tensor FollowElements(const ServerOptimizerSettings& settings,
                                        const at::Tensor& d, std::vector<NamedTensor>& memory);

/// On a change in product space; the momentum is cut to `rank`.
[[nodiscard]] LowRankSum FollowProduct(const ServerOptimizerSettings& settings, const LowRankSum& d,
                                       int64_t rank, std::vector<NamedTensor>& memory);

/// What a site remembers after one of its factors moved: the other's memory as it was, and `own`
/// under
/// "<side>:".
[[nodiscard]] std::vector<NamedTensor> Remembered(const std::vector<NamedTensor>& memory,
                                                  const std::string& path, const std::string& side,
                                                  const std::vector<NamedTensor>& own);

/// What the state remembers of a site, names without its path.
[[nodiscard]] std::vector<NamedTensor> MemoryOf(const std::vector<NamedTensor>& memory,
                                                const std::string& path);

}  // namespace weft
