#pragma once
// Adapter: one method (LoRA, NOLA, KaSA …), stateless; the tensors live in AdapterState. A new
// method is one .cc file and one line in registry.cc; tests/conformance/adapter_test.cc then holds
// it to this contract.

#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

class Adapter {
 public:
  virtual ~Adapter() = default;

  /// The registry's name, also PEFT's or the paper's ("lora").
  [[nodiscard]] virtual std::string_view name() const = 0;

  /// kInvalidArgument if the spec says something this method cannot do.
  [[nodiscard]] virtual Status CheckSpec(const AdapterSpec& spec) const = 0;

  /// A fresh adapter on these sites (already matched against the spec): fresh adapter = base model.
  /// Every number comes from `seed`, the site's path and the tensor's name. Float32 on the CPU.
  [[nodiscard]] virtual Result<AdapterState> Init(const AdapterSpec& spec,
                                                  std::span<const LinearSite> sites,
                                                  uint64_t seed) const = 0;

  /// Tensors of a site that training changes; all others of the state are constants of the method.
  [[nodiscard]] virtual std::vector<std::string> Trainable(const AdapterSpec& spec) const = 0;

  /// Differentiable factors of one site at scale 1; autograd carries gradients to the trainable
  /// tensors.
  [[nodiscard]] virtual LowRank Effective(const AdapterState& state, size_t site_index) const = 0;

  /// Parameters whose Effective() is (nearly) the given factors; kFailedPrecondition where the
  /// method has none.
  [[nodiscard]] virtual Result<AdapterState> Project(const AdapterSpec& spec,
                                                     const LowRankAdapter& factors) const = 0;

  /// Called after each optimiser step, under no-grad (RoseLoRA's pruning, KaSA's regularisers …).
  virtual void AfterStep(AdapterState& state, int64_t step) const;
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

/// Rank, alpha and scaling (alpha/r, or alpha/√r with rsLoRA) of one site, patterns applied.
/// RankFor is what the spec says; CapRanks writes a rank_pattern entry for every site whose min(in,
/// out) is smaller and returns those paths (for a notice).
[[nodiscard]] int64_t RankFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] double AlphaFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] double ScalingFor(const AdapterSpec& spec, std::string_view path);
[[nodiscard]] std::vector<std::string> CapRanks(AdapterSpec& spec,
                                                std::span<const LinearSite> sites);

}  // namespace weft
