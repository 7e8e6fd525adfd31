#pragma once
// Merging MSPLoRA adapters tier by tier, so that what layers share stays shared. A tier's map from
// its pair to ΔW is bilinear and tiers add up, so the mean of the clients' tiers is the mean of
// their updates: exact for any mix of ranks, alphas, groupings and tiers. Stateless.
//
// Shape legend: R rank, I in, O out.

#include <span>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

/// One pair and the sites that use it.
struct MspCell {
  std::string tier;           // "global", "mid", …
  std::vector<size_t> sites;  // ascending
  LowRank factors;            // at scale 1, float64
};

/// Σ_c p_c·ΔW_c in native coordinates: ΔW of a site is the sum over the cells that hold it.
struct MspMerge {
  std::vector<LinearSite> sites;
  std::vector<MspCell> cells;  // by tier, coarse to fine, then by first site
};

/// Stacks [p_c·s_c·B_c …], [A_c; …] in each cell of the tier's common refinement: two sites stay in
/// one cell if every client shares that tier's pair between them. Where all clients of a cell have
/// the same A (frozen, say), or the same B, the other factor is averaged instead and the rank does
/// not grow; that is exact, too. A client without the tier adds nothing to it. kInvalidArgument for
/// no client, states of another method, or sites that differ, naming the client by its number.
[[nodiscard]] Result<MspMerge> MergeMsp(std::span<const AdapterUpdate> updates);

/// Every cell cut to `rank`, its best approximation of that rank, with factors of equal weight. The
/// sites of a cell go on sharing it.
[[nodiscard]] MspMerge RecompressMsp(const MspMerge& merge, int64_t rank);

/// The merge as an adapter of one spec, to go on from: each tier recompressed to the spec's rank
/// where it has more, the tier's scaling taken out of B; slots beyond the merge's rank are those of
/// a fresh adapter of that seed. Float32. kFailedPrecondition for a tier that the spec lacks, and
/// where sites that share a tier by the spec do not lie in one cell.
[[nodiscard]] Result<AdapterState> MspStateOf(const AdapterSpec& spec, const MspMerge& merge,
                                              uint64_t seed);

/// Factors of every site, tiers side by side.
[[nodiscard]] LowRankAdapter LowerMsp(const MspMerge& merge);

/// A personalised adapter: what a federation shares (global and mid tiers; msplora.part = "shared")
/// and what stays on the client (the layers' own; "own"). Both are MSPLoRA adapters and hold the
/// state's own tensors; their updates add up to the state's. kInvalidArgument unless the state is
/// whole and both parts have a tier.
struct MspParts {
  AdapterState shared;
  AdapterState own;
};
[[nodiscard]] Result<MspParts> SplitMsp(const AdapterState& state);

/// SplitMsp backwards. kInvalidArgument if the two are not such parts of one adapter.
[[nodiscard]] Result<AdapterState> JoinMsp(const MspParts& parts);

}  // namespace weft
