#pragma once
// KaSA (Wang et al. 2024, arXiv:2412.06071): the base without its smallest singular components,
// and an update ΔW = s·B·diag(σ)·A in the form of an SVD, which two regularisers hold in that form:
// β·‖σ‖² + γ·(‖A·Aᵀ − I‖_F + ‖Bᵀ·B − I‖_F) for every site. σ starts as N(0, 1), A as a LoRA's, B
// at zero.
//
// A site has "A" [r×in], "B" [out×r] and "sigma" [r]. Options: kasa.beta (1e-4), kasa.gamma (1e-3),
// kasa.truncate (components taken out of each layer of the base; the site's rank where it is not
// given; 0: none) and kasa.mode ("paper"; "official": as the released code does, which keeps in − r
// components where there are min(in, out), measures A and B by the Gram matrices of their long
// sides, and divides the regularisers by the number of sites).
//
// The truncation is taken once, from the untouched base: taken again from a base with an update
// folded in, it would remove what was learnt. Stateless.
//
// Shape legend: R rank, I in, O out.

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* KasaAdapter();

/// How many singular components BaseChange takes out of a layer. kInvalidArgument for options that
/// cannot be used, or where nothing of the layer would be left.
[[nodiscard]] Result<int64_t> RemovedComponents(const AdapterSpec& spec, const LinearSite& site);

/// The `count` smallest singular components of W [O×I], Σ u·σ·vᵀ, as factors at scale 1 [R = count]
/// with orthonormal columns in B (out ≤ in) or rows in A (else), the smallest first; so the first k
/// pairs are the k smallest. Float64, on W's device. 0 ≤ count ≤ min(O, I) (checked).
///
/// Beyond 64 rows and columns from the eigenvectors of the smaller Gram matrix in float64, as
/// B·(Bᵀ·W): what rounding mixes in of larger components is of the order of 1e-16·σ_1²/gap.
[[nodiscard]] LowRank SmallestComponents(const at::Tensor& W_OI, int64_t count);

}  // namespace weft
