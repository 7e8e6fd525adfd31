#pragma once
// Slots: what rules that hand out slots of one global adapter have in common. A slot is a row of A
// and the column of B beside it. A client of rank r gets r of those that train, B divided by its
// own scaling: the first r, or r drawn for it.

#include <optional>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// `init` with every scaling 1 and these ranks (one per site, in order).
[[nodiscard]] AdapterSpec UnitSpec(const AdapterSpec& init, std::span<const SiteState> sites);

/// B = 0 and A drawn as a fresh LoRA adapter's, at the spec's ranks capped by min(in, out).
[[nodiscard]] Result<GlobalState> InitSlots(std::string_view strategy, const AdapterSpec& spec,
                                            std::span<const LinearSite> sites, uint64_t seed);

/// Which slots a client of low rank gets, and where the others are.
struct SlotRule {
  bool draws = false;           // drawn for it; else the first ones
  bool tail_on_client = false;  // the others lie frozen beside its own; those of a draw always do
};

/// The spec of a client's LoRA adapter by that rule in that round. One of the global rank has all
/// slots: nothing is drawn, and all such clients are sent the same. Other methods get the first
/// slots alone.
[[nodiscard]] AdapterSpec SlotsForRound(const SlotRule& rule, int64_t global_rank,
                                        const AdapterSpec& spec, uint64_t seed, uint64_t round);

/// Are the slots of this spec each client's own?
[[nodiscard]] bool HasDrawnSlots(const AdapterSpec& spec);

/// Slots of that site that clients train; those beyond are frozen for good.
[[nodiscard]] int64_t TrainedSlots(const GlobalState& global, size_t site);

/// Which of `trained` slots the client gets, ascending.
[[nodiscard]] std::vector<int64_t> SlotsOf(const ClientPlan& client, const LinearSite& site,
                                           int64_t trained);

/// One site of what the client is sent, of its own rank. A slot that is zero on both sides, or
/// that the global adapter lacks, gets a direction in A (and B = 0): else it could never learn.
[[nodiscard]] Result<SiteState> CutSite(const GlobalState& global, size_t site,
                                        const ClientPlan& client);

/// A client whose method starts from no given factors gets the whole global adapter as the frozen
/// part, and was sent nothing that its update is measured against.
[[nodiscard]] Result<AdapterBundle> CutSlots(const GlobalState& global, const ClientPlan& client);

/// Float64 factors at scale 1 of one site of any method's adapter.
[[nodiscard]] Result<LowRank> LowerSite(const AdapterSpec& spec, const SiteState& site);

[[nodiscard]] Result<std::optional<LowRank>> SentSlots(const GlobalState& global, size_t site,
                                                       const ClientPlan& client);

/// Were both given the same factors? Drawn slots are each client's own.
[[nodiscard]] bool SentAlike(const ClientPlan& a, const ClientPlan& b);

/// The mean of what the clients started from, Σ c_k sent_k: LoRA clients share the global A, so
/// their part is one B on it; others are blocks of their own.
struct SentMean {
  at::Tensor B_OG;  // beside the global adapter's A
  LowRankSum others;
};

/// Σ c_k sent_k of one site.
[[nodiscard]] Result<SentMean> MeanOfSent(const MergeInput& input, size_t site);

/// Factors of the old global adapter less the mean of what LoRA clients were sent, in its own slots
/// (float64): the part of it that nobody trained.
[[nodiscard]] LowRank UntrainedSlots(const SiteState& global, const SentMean& sent);

/// The same as a sum, what clients of other methods were sent taken away too.
[[nodiscard]] LowRankSum Untrained(const SiteState& global, const SentMean& sent);

}  // namespace weft
