#pragma once
// MSPLoRA (Zhao et al. 2025, arXiv:2503.21838): layers of one module type share factors at several
// scales. ΔW of layer l is Σ_t s_t·B_t·A_t over a global pair that all layers share, pairs of
// groups of consecutive layers, and a pair of the layer's own; s_t = alpha/r_t (alpha/√r_t with
// rsLoRA), the same alpha for every tier.
//
// Every site lists its tiers from coarse to fine as "global.A" [r_t×in], "global.B" [out×r_t],
// "mid.A" …, "layer.B"; sites that share a tier hold the same tensors.
//
// Options: msplora.tiers (how many; 3: global, mid, layer; what lies between the first and the last
// is mid-level), msplora.groups (of each mid-level tier; 3), msplora.ranks ("8,4,2", coarse to
// fine, for every site whatever its rank is; 0: there is no such tier), without which a tier has
// half the rank of the one before, at least 1; msplora.staged ("true": each tier in turn trains
// alone for an equal share of the run's steps) and msplora.part ("all"; "shared": the adapter
// without the layers' own tier; "own": that tier alone; "personal": in a federation "shared" is
// shipped, and "own" trains with it but stays at the site over all rounds).
//
// A site's module type is its path without the number of its layer (the first path segment that is
// a number). A site without one is a type of its own: it has every tier, and shares none.
// Stateless.

#include <string>
#include <string_view>
#include <vector>

#include "common/adapters/adapter.h"

namespace weft {

[[nodiscard]] const Adapter* MspLoraAdapter();

/// "model.layers.3.self_attn.q_proj" is layer 3 of type "model.layers.*.self_attn.q_proj".
struct LayerPlace {
  std::string type;
  int64_t layer = 0;  // 0 where the path has no number
};
[[nodiscard]] LayerPlace LayerPlaceOf(std::string_view path);

/// Which of `groups` mid-level groups the layer is in: ⌊groups·layer / depth⌋. `depth`, the number
/// of layers, must be more than `layer` (checked); groups may be more than layers.
[[nodiscard]] int64_t MidGroup(int64_t groups, int64_t layer, int64_t depth);

/// {"global", "mid", "layer"}; with more tiers "mid", "mid2", "mid3" …; with one "global" alone.
[[nodiscard]] std::vector<std::string> TierNames(int64_t tiers);

/// Ranks of a site's tiers, coarse to fine, each capped by the layer's sides; 0: no such tier.
/// kInvalidArgument for options or a rank that cannot be used.
[[nodiscard]] Result<std::vector<int64_t>> TierRanks(const AdapterSpec& spec,
                                                     const LinearSite& site);

/// s_t of a tier of that rank.
[[nodiscard]] double TierScaling(const AdapterSpec& spec, std::string_view path, int64_t rank);

}  // namespace weft
