#pragma once
// Strategy: one rule that turns a round's updates into the next global adapter. A new rule is one
// .cc file and one line in registry.cc; tests/conformance/strategy_test.cc then holds it to this
// contract. Stateless: all memory is the GlobalState, which is saved and restored as bytes.
//
// A rule works site by site, on float64 factors at scale 1 that it pulls from an UpdateSource in
// client order, so it never sees which update arrived first, and needs the memory of one site.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "aggregator/algebra.h"
#include "common/adapters/adapter.h"
#include "common/codec/adapter_block.h"
#include "common/config/settings.h"
#include "common/plan/round_plan.h"

namespace weft {

/// What a rule needs, can work with, and promises.
struct StrategyTraits {
  // False: a weighted sum of the updates would do, and it takes them by EachStack alone, so that a
  // merge needs the memory of a few clients' factors of one site, however many there are.
  bool needs_each_update = true;
  bool mixed_ranks = false;     // clients of different ranks in one round
  bool mixed_methods = false;   // works on lowered factors, whatever method made them
  bool gauge_free = false;      // the product it publishes depends on products B·A only
  bool exact = false;           // before cutting, its target is G + Σ p_k (ΔW_k − sent_k)
  bool weights_by_size = true;  // splitting a client in two changes nothing
  // Merges whole adapters of one method in that method's coordinates, and publishes such a one.
  bool own_coordinates = false;
  // Its target is G + Σ c_k (ΔW_k − sent_k) for any c_k ≥ 0: robust rules may choose them.
  bool any_weights = false;
  // One factor trains while the other is the same at every site: rules that look at single elements
  // of it mean something.
  bool frozen_side = false;
  // Clients go on from factors in the basis they had, so that AdamW's moments keep their meaning.
  bool keeps_basis = false;
};

/// The global adapter between rounds. Its own spec makes every scaling 1, so it is a plain LoRA
/// adapter to everyone who reads it (a rule with own_coordinates keeps one of the run's method);
/// `init` is the spec the run began with, whose ranks bound the ranks that clients train. Slots
/// beyond them are frozen for good.
struct GlobalState {
  std::string strategy;
  AdapterSpec init;
  AdapterState adapter;
  // What the run's method took out of the base model before round 1; applied beside the adapter,
  // never merged.
  std::optional<AdapterState> base_change = std::nullopt;
  // What rule and server optimiser remember, "<site path>:<name>", float32.
  std::vector<NamedTensor> memory = {};
};

/// One site's factors of all clients side by side in client order, the weights in B:
/// B [O×ΣR] · A [ΣR×I] = Σ p_k s_k B_k A_k. One product with it replaces one for each client.
struct SiteStack {
  LowRank factors;
  std::vector<int64_t> begins;  // first rank of each client, and all ranks together

  /// Clients in it.
  [[nodiscard]] size_t size() const { return begins.size() - 1; }
  /// p_k s_k B_k and A_k.
  [[nodiscard]] LowRank Of(size_t client) const;
};

/// Where stacks are laid: each new one overwrites the one before. One thread.
struct StackMemory {
  at::Tensor A = at::empty({0}, at::kDouble);
  at::Tensor B = at::empty({0}, at::kDouble);
};

/// One client's factors of a site as they came: ΔW = scale · B·A.
struct PlainFactors {
  LowRank factors;  // of any precision
  double scale = 1;
};

/// The round's accepted updates, ordered by client name.
class UpdateSource {
 public:
  virtual ~UpdateSource() = default;
  [[nodiscard]] virtual size_t size() const = 0;
  [[nodiscard]] virtual const ClientPlan& plan(size_t client) const = 0;
  /// p_k: positive, adding up to 1. Of updates that a robust rule has weighed: c_k ≥ 0.
  [[nodiscard]] virtual double weight(size_t client) const = 0;
  /// ‖ΔW_k − what it was sent‖_F over all sites, as measured when the update was admitted.
  [[nodiscard]] virtual double update_norm(size_t client) const = 0;
  /// Float64 factors at scale 1 of one site. Thread-safe.
  [[nodiscard]] virtual Result<LowRank> Factors(size_t client, size_t site) const = 0;
  /// The same without a copy where the client sent factors: in its precision, its scale apart. As
  /// Factors gives them unless overridden. Thread-safe.
  [[nodiscard]] virtual Result<PlainFactors> Plain(size_t client, size_t site) const;
  [[nodiscard]] virtual Result<SiteStack> Stack(size_t site) const;
  /// Stacks of clients that follow one another, `first` and so on, together all of them; each is
  /// gone when `use` returns. One stack of all unless overridden.
  [[nodiscard]] virtual Status EachStack(
      size_t site, const std::function<Status(size_t first, const SiteStack& stack)>& use) const;
  /// Σ p_k s_k B_k A_k of one site, in client order.
  [[nodiscard]] virtual Result<LowRankSum> Mean(size_t site) const;
  /// What was published when the client was asked, if that was an earlier version than the one its
  /// update is merged into; null: the same. Null unless overridden.
  [[nodiscard]] virtual const GlobalState* older_global(size_t) const { return nullptr; }
  /// The share of its change that counts although it comes late. 1 unless overridden.
  [[nodiscard]] virtual double discount(size_t) const { return 1; }
  /// The client's whole adapter, for rules with own_coordinates. kInternal unless overridden.
  [[nodiscard]] virtual Result<AdapterState> State(size_t client) const;
  /// The client's whole modules, of the global adapter's names and shapes. None unless overridden.
  [[nodiscard]] virtual Result<std::vector<NamedTensor>> Dense(size_t client) const;
  /// The stack lies in `memory`.
  [[nodiscard]] Result<SiteStack> StackIn(StackMemory& memory, size_t site) const {
    return StackIn(memory, site, 0, size());
  }
  /// Of the clients from `first` to before `last`.
  [[nodiscard]] Result<SiteStack> StackIn(StackMemory& memory, size_t site, size_t first,
                                          size_t last) const;
};

/// The weights of all clients.
[[nodiscard]] std::vector<double> WeightsOf(const UpdateSource& updates);

struct MergeInput {
  const StrategySettings& settings;
  const GlobalState& global;  // for MergeSite of a rule with own_coordinates: in lowered form
  const UpdateSource& updates;
  uint64_t round = 1;                      // the one that is merged
  const Adapter::Merged* whole = nullptr;  // for MergeSite of such a rule: what MergeWhole gave

  /// What that client's update is measured against.
  [[nodiscard]] const GlobalState& StartOf(size_t client) const {
    const GlobalState* const older = updates.older_global(client);
    return older != nullptr ? *older : global;
  }
};

/// What a rule decides over all sites together, before it merges them one by one.
struct RoundSurvey {
  std::vector<int64_t> ranks = {};   // the largest that each site may have afterwards
  std::vector<double> weights = {};  // of the clients
};

/// One site merged, in float64, with what is needed to certify it.
struct SiteMerge {
  LowRank factors;           // the new global factors, before they are rounded to float32
  int64_t kept = 0;          // leading slots of `factors` that are the old ones, unchanged
  bool adds_to_old = false;  // the target is the growth over the old global, not the global itself
  // The target is sum + rest, cut to a rank: before_truncation is what the cut was made from. Else
  // it is `factors` themselves, and the three sums are not looked at.
  bool has_target = true;
  LowRankSum sum;           // Σ c_k s_k B_k A_k, or what the rule puts in its place
  bool sum_is_mean = true;  // the former, of the weights it was given
  LowRankSum rest;          // of the old global adapter
  LowRankSum before_truncation;
  std::optional<Frame> frame = std::nullopt;  // of sum's and rest's stack; then it is the former
  at::Tensor spectrum;  // singular values of the target; undefined: those of `factors`, all energy
  double cut_energy = 0;                 // Σσ² cut away …
  double whole_energy = 0;               // … of this Σσ²
  std::vector<NamedTensor> memory = {};  // for the next round: names without the site's path
};

class Strategy {
 public:
  virtual ~Strategy() = default;

  [[nodiscard]] virtual std::string_view name() const = 0;
  [[nodiscard]] virtual StrategyTraits traits() const = 0;

  /// The keys of [strategy] that it knows beside its name; others must be at their defaults.
  [[nodiscard]] virtual std::span<const std::string_view> keys() const = 0;

  /// kInvalidArgument with the reason if settings are out of range or do not go together. Nothing
  /// to say unless overridden.
  [[nodiscard]] virtual Status Check(const StrategySettings& settings) const;

  /// What a client's adapter of that round is asked beside its own spec: which factor trains, which
  /// slots it is given of `global_rank`. The same spec unless overridden.
  [[nodiscard]] virtual AdapterSpec ForRound(const StrategySettings& settings, int64_t global_rank,
                                             const AdapterSpec& spec, uint64_t seed,
                                             uint64_t round) const;

  /// The global adapter before round 1; it changes nothing in the model.
  [[nodiscard]] virtual Result<GlobalState> Init(const AdapterSpec& spec,
                                                 std::span<const LinearSite> sites,
                                                 uint64_t seed) const = 0;

  /// What a client of that plan is sent.
  [[nodiscard]] virtual Result<AdapterBundle> Cut(const GlobalState& global,
                                                  const ClientPlan& client) const = 0;

  /// Float64 factors at scale 1 of the adapter that Cut sends (not of its frozen part): what the
  /// client's update is measured against. Nothing where the client starts from a fresh adapter.
  [[nodiscard]] virtual Result<std::optional<LowRank>> Sent(const GlobalState& global, size_t site,
                                                            const ClientPlan& client) const = 0;

  /// Looked at once before the sites. Nothing decided unless overridden.
  [[nodiscard]] virtual Result<RoundSurvey> Survey(const MergeInput& input) const;

  /// Of a rule with own_coordinates: the round's updates as one adapter of their method.
  [[nodiscard]] virtual Result<Adapter::Merged> MergeWhole(const MergeInput& input) const;

  /// Merges one site; any thread.
  [[nodiscard]] virtual Result<SiteMerge> MergeSite(const MergeInput& input,
                                                    const RoundSurvey& survey,
                                                    size_t site) const = 0;
};

/// Every strategy there is, in a fixed order.
[[nodiscard]] std::span<const Strategy* const> StrategyRegistry();

/// The strategy of that name, or kNotFound listing the known ones.
[[nodiscard]] Result<const Strategy*> FindStrategy(std::string_view name);

/// All that can be refused before a run starts: unknown names, ranges, settings of another rule,
/// robust rules and server optimisers it cannot follow, training options that it defeats.
[[nodiscard]] Status CheckStrategySettings(const StrategySettings& settings,
                                           const LocalTraining& training);

/// The same of updates that come late: only a rule that adds up what clients changed, in product
/// space, can count one that was measured against an older version.
[[nodiscard]] Status CheckStaleness(const StrategySettings& settings, const CohortSettings& cohort);

}  // namespace weft
