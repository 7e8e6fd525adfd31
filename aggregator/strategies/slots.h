#pragma once
// Slots: what rules that hand out the leading slots of one global adapter have in common. A client
// of rank r gets the first r slots (rows of A, columns of B), B divided by its own scaling.

#include <optional>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// `init` with every scaling 1 and these ranks (one per site, in order).
[[nodiscard]] AdapterSpec UnitSpec(const AdapterSpec& init, std::span<const SiteState> sites);

/// B = 0 and A drawn as a fresh LoRA adapter's, at the spec's ranks capped by min(in, out).
[[nodiscard]] Result<GlobalState> InitSlots(std::string_view strategy, const AdapterSpec& spec,
                                            std::span<const LinearSite> sites, uint64_t seed);

/// One site of what the client is sent, of its own rank. A slot that is zero on both sides, or
/// that the global adapter lacks, gets a direction in A (and B = 0): else it could never learn.
[[nodiscard]] Result<SiteState> CutSite(const SiteState& global, const AdapterSpec& client);

/// A client whose method starts from no given factors gets the whole global adapter as the frozen
/// part, and was sent nothing that its update is measured against.
[[nodiscard]] Result<AdapterBundle> CutSlots(const GlobalState& global, const ClientPlan& client);

/// Float64 factors at scale 1 of one site of any method's adapter.
[[nodiscard]] Result<LowRank> LowerSite(const AdapterSpec& spec, const SiteState& site);

[[nodiscard]] Result<std::optional<LowRank>> SentSlots(const GlobalState& global, size_t site,
                                                       const ClientPlan& client);

/// The mean of what the clients started from, Σ p_k sent_k: LoRA clients share the global A, so
/// their part is one B on it; others are blocks of their own.
struct SentMean {
  at::Tensor B_OG;  // beside the global adapter's A; undefined: nothing was sent
  LowRankSum others;
};

/// Σ p_k sent_k of one site.
[[nodiscard]] Result<SentMean> MeanOfSent(const MergeInput& input, size_t site);

/// The old global adapter less the mean of what was sent: the part of it that nobody trained.
[[nodiscard]] LowRankSum Untrained(const SiteState& global, const SentMean& sent);

/// Σ p_k s_k B_k A_k of one site, in client order.
[[nodiscard]] Result<LowRankSum> IdealMean(const MergeInput& input, size_t site);

}  // namespace weft
