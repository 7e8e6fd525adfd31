#pragma once
// Adapter: one method (LoRA, NOLA, KaSA …), stateless; the tensors live in AdapterState. A new
// method is one .cc file and one line in registry.cc; tests/conformance/adapter_test.cc then holds
// it to this contract.

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

/// One tensor of a site, as its method lays it out.
struct TensorLayout {
  std::string name;
  std::vector<int64_t> shape;
  size_t owner = 0;  // index of the site that it belongs to; another's: both sites use that tensor
};
using SiteLayout = std::vector<TensorLayout>;

/// Constants that a method makes from its spec (NOLA's bases), kept by whoever asks for factors
/// again and again. Immutable.
class Prepared {
 public:
  virtual ~Prepared() = default;
};

/// A base layer's weight, float32 [out×in].
using WeightOf = std::function<Result<at::Tensor>(const LinearSite& site)>;

/// Where one training stands in the whole run, in optimiser steps.
struct StepSchedule {
  int64_t steps_done = 0;   // in earlier rounds
  int64_t total_steps = 1;  // of all rounds together
  // Of AdamW: a rule that trains some parameters later than others must know its bias correction.
  double beta1 = 0.9;
  double beta2 = 0.999;
  int64_t moment_steps = 0;  // that the moments have seen before this training
};

/// What a method does at every optimiser step beside following the gradient (RoseLoRA's pruning,
/// MSPLoRA's stages). Made for one training; remembers what it must. One thread, under no-grad, on
/// tensors whose grad() autograd has filled.
class StepRule {
 public:
  virtual ~StepRule() = default;
  /// The gradients are complete and clipped, the parameters are still those they belong to.
  virtual void BeforeStep(AdapterState& state) = 0;
  /// The optimiser has moved the parameters.
  virtual void AfterStep(AdapterState& state) = 0;
  /// What the next round must know to go on; float32 on the CPU. Nothing unless overridden.
  [[nodiscard]] virtual std::vector<NamedTensor> Save() const;
  /// kInvalidArgument if that was saved from another layout.
  [[nodiscard]] virtual Status Restore(const std::vector<NamedTensor>& saved);
};

class Adapter {
 public:
  virtual ~Adapter() = default;

  /// The registry's name, also PEFT's or the paper's ("lora").
  [[nodiscard]] virtual std::string_view name() const = 0;

  /// kInvalidArgument if the spec says something this method cannot do.
  [[nodiscard]] virtual Status CheckSpec(const AdapterSpec& spec) const = 0;

  /// The spec of one round of a run: what its adapters must agree on beside the run's settings
  /// (NOLA's seed of the bases). The same spec unless overridden.
  [[nodiscard]] virtual AdapterSpec ForRound(const AdapterSpec& spec, uint64_t seed,
                                             uint64_t round) const;

  /// The tensors of each site, in the order they are kept, shipped and hashed. Ranks are capped by
  /// min(in, out). kInvalidArgument for a rank below 1, or sites that cannot share as the method
  /// wants. Looks at no tensor, so a peer's bytes are checked against it.
  [[nodiscard]] virtual Result<std::vector<SiteLayout>> Layout(
      const AdapterSpec& spec, std::span<const LinearSite> sites) const = 0;

  /// A fresh adapter on these sites (already matched against the spec): fresh adapter = base model.
  /// Every number comes from `seed`, the site's path and the tensor's name. Float32 on the CPU.
  [[nodiscard]] virtual Result<AdapterState> Init(const AdapterSpec& spec,
                                                  std::span<const LinearSite> sites,
                                                  uint64_t seed) const = 0;

  /// Tensors of a site that training changes; all others of the state are constants of the method.
  [[nodiscard]] virtual std::vector<std::string> Trainable(const AdapterSpec& spec) const = 0;

  /// Constants for Effective on that device, or none.
  [[nodiscard]] virtual std::shared_ptr<const Prepared> Prepare(const AdapterState& state,
                                                                at::Device device) const;

  /// Differentiable factors of one site at scale 1; autograd carries gradients to the trainable
  /// tensors.
  [[nodiscard]] virtual LowRank Effective(const AdapterState& state, size_t site_index) const = 0;

  /// Those of all sites; `prepared` is what Prepare gave for this layout, or null. One call of
  /// Effective for each site unless overridden.
  [[nodiscard]] virtual std::vector<LowRank> EffectiveAll(const AdapterState& state,
                                                          const Prepared* prepared) const;

  /// Rank of one site's Effective factors.
  [[nodiscard]] virtual int64_t FactorRank(const AdapterSpec& spec, const LinearSite& site) const;

  /// Can a client of this method start from given factors? One that cannot starts every round from
  /// a fresh adapter beside them.
  [[nodiscard]] virtual bool projects() const { return false; }

  /// Parameters whose Effective() is (nearly) the given factors; kFailedPrecondition where the
  /// method has none.
  [[nodiscard]] virtual Result<AdapterState> Project(const AdapterSpec& spec,
                                                     const LowRankAdapter& factors) const;

  /// Ok if Merge can merge what clients of that spec train; else kInvalidArgument saying why, or
  /// what to set. Refused unless overridden.
  [[nodiscard]] virtual Status CheckMerges(const AdapterSpec& spec) const;

  /// Σ p_c·ΔW_c in the method's own coordinates, so that clients go on from it and it costs the
  /// wire no more than an update: `before_cutting` is the sum as the method can represent it,
  /// `state` that sum as an adapter of the spec. States of one layout, weights adding up to 1;
  /// kFailedPrecondition where they have no such sum.
  struct Merged {
    AdapterState state;
    LowRankAdapter before_cutting;
  };
  [[nodiscard]] virtual Result<Merged> Merge(std::span<const AdapterUpdate> updates,
                                             const AdapterSpec& spec, uint64_t seed) const;

  /// A client's adapter in two: what it ships and goes by the run's spec, and what stays with it
  /// over the rounds (MSPLoRA's own tiers). Their updates add up.
  struct Parts {
    AdapterState shipped;
    AdapterState kept;
  };
  /// The spec of the part that is kept; nothing unless overridden.
  [[nodiscard]] virtual std::optional<AdapterSpec> KeptSpec(const AdapterSpec& spec) const;
  /// Both parts as one adapter, which holds their tensors, and back. kInvalidArgument for what are
  /// no such parts. For methods with a KeptSpec.
  [[nodiscard]] virtual Result<AdapterState> Join(const Parts& parts) const;
  [[nodiscard]] virtual Result<Parts> Split(const AdapterState& joined,
                                            const AdapterSpec& spec) const;

  /// What training minimises beside the loss (KaSA's regularisers): a differentiable scalar, added
  /// once for each optimiser step. Undefined: nothing.
  [[nodiscard]] virtual at::Tensor Penalty(const AdapterState& state) const;

  /// What the method takes out of the base model before anybody trains (KaSA's smallest singular
  /// components), as factors at scale 1 that are applied beside every adapter of the run. A
  /// function of spec and weights, computed once in a run. Nothing unless overridden.
  [[nodiscard]] virtual Result<std::optional<LowRankAdapter>> BaseChange(
      const AdapterSpec& spec, std::span<const LinearSite> sites, const WeightOf& weight) const;

  /// Null unless the method has one.
  [[nodiscard]] virtual std::unique_ptr<StepRule> NewStepRule(const AdapterState& state,
                                                              const StepSchedule& schedule) const;
};

/// Every method there is, in a fixed order.
[[nodiscard]] std::span<const Adapter* const> AdapterRegistry();

/// The method of that name, or kNotFound listing the known ones.
[[nodiscard]] Result<const Adapter*> FindAdapter(std::string_view name);

/// Factors of all sites, detached, float32, on the state's device.
[[nodiscard]] Result<LowRankAdapter> Lower(const AdapterState& state);

/// The sites of `all` that the spec's targets, exclusions and layers choose, in the order of `all`.
/// PEFT's matching rules. kInvalidArgument if nothing matches or a named target matches nothing.
[[nodiscard]] Result<std::vector<LinearSite>> MatchSites(const AdapterSpec& spec,
                                                         std::span<const LinearSite> all);

/// RankFor, capped by the layer's sides.
[[nodiscard]] int64_t SiteRank(const AdapterSpec& spec, const LinearSite& site);

/// Rank, alpha and scaling (alpha/r, or alpha/√r with rsLoRA) of one site, patterns applied.
/// RankFor is what the spec says; CapRanks writes a rank_pattern entry for every site whose min(in,
/// out) is smaller and returns those paths (for a notice).
[[nodiscard]] int64_t RankFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] double AlphaFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] double ScalingFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] std::vector<std::string> CapRanks(AdapterSpec& spec,
                                                std::span<const LinearSite> sites);

}  // namespace weft
