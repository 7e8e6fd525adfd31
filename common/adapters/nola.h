#pragma once
// NOLA (Koohpayegani et al. 2024): A = A₀ + (1/√k) Σ α_i A_i, B = (1/√k) Σ β_i B_i over frozen
// random bases; ΔW = s·B·A with s = alpha/r. Only the 2k coefficients of a layer are trained and
// shipped; bases and A₀ come from a seed. Stateless.
//
// Options: nola.k, bases of each factor; nola.basis, "shared" (all layers whose factor has one
// shape use the same bases, which then fit in memory) or "site" (each layer its own, made anew in
// every pass); nola.train, "both", "alpha" or "beta"; nola.seed and nola.generator, which the plan
// of a round fixes.

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* NolaAdapter();

/// Σ over bases as every layer that shares them needs it: offsets_LE + (1/√k)·c_LK·bases_KE, in the
/// type of c. Without offsets where those are undefined.
[[nodiscard]] at::Tensor CombineBases(const at::Tensor& coefficients_LK, const at::Tensor& bases_KE,
                                      const at::Tensor& offsets_LE);

}  // namespace weft
