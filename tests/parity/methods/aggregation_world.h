#pragma once
// golden/aggregation as rounds in memory: clients with float64 factors, global states in float64,
// and the merges that the real strategies and robust rules make of them. Numbers of clients and
// layers, ranks, shapes and the numbers inside names ("krum.f1.") are read from the file.
//
// Shape legend: O out, I in, K clients.

#include <string>
#include <string_view>
#include <vector>

#include "aggregator/strategies/robust_rules.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/strategy.h"
#include "tests/parity/methods/golden_set.h"
#include "tests/support/strategy_world.h"

namespace weft::testing {

inline constexpr double kExact = 1e-10;  // absolute, in float64
inline constexpr double kMedian = 1e-6;  // of the geometric median's coefficients
inline constexpr double kFloat32 = 1e-5;  // ‖got − wanted‖_F / ‖wanted‖_F of what is published

/// "flora.layer2.dW"
[[nodiscard]] std::string OfLayer(std::string_view prefix, size_t layer, std::string_view name);
/// The number that a piece of a name is ("0.90" of "rank_tau0.90"). Throws GoldenError for anything
/// else.
[[nodiscard]] double NumberIn(std::string_view text);
[[nodiscard]] int64_t IntegerIn(std::string_view text);
/// The pieces of names between `prefix` and `suffix`, of which there must be one at least: "0.2"
/// between "trimmed.beta" and ".layer0.dW".
[[nodiscard]] std::vector<std::string> Variants(const GoldenSet& golden, std::string_view prefix,
                                                std::string_view suffix);

/// |got − wanted| ≤ tolerance everywhere, and the same shape.
void ExpectNear(GoldenSet& golden, const std::string& name, const at::Tensor& got,
                double tolerance = kExact);
void ExpectNear(GoldenSet& golden, const std::string& name, const std::vector<double>& got,
                double tolerance = kExact);
/// The same of singular values: one side may have more of them, which must be zero.
void ExpectSpectrum(GoldenSet& golden, const std::string& name, const at::Tensor& got);
/// The same of singular vectors with their values, slots first, as far as `spectrum` tells them
/// apart: a vector is as exact as rounding over the distance to its neighbours.
void ExpectSlots(GoldenSet& golden, const std::string& name, const at::Tensor& got_slots,
                 const at::Tensor& wanted_slots, const at::Tensor& spectrum);

/// Clients of an inputs file and what else it says of them; `golden` knows which tensors were used.
struct AggregationWorld {
  explicit AggregationWorld(const std::string& file);

  [[nodiscard]] size_t layers() const { return sites.size(); }
  [[nodiscard]] MemoryUpdates Updates() const { return MemoryUpdates(clients); }
  /// Unit weights, for rules that know no numbers of examples.
  [[nodiscard]] MemoryUpdates UniformUpdates() const;
  /// All clients at one layer alone, as site 0.
  [[nodiscard]] MemoryUpdates AtLayer(size_t layer) const;
  [[nodiscard]] int64_t LargestRank() const;
  /// s of clients that all have the same.
  [[nodiscard]] double Scaling() const;

  GoldenSet golden;
  std::vector<LinearSite> sites;
  std::vector<MemoryClient> clients;
};

/// A global state of these factors at scale 1, of which clients train at most `rank` slots;
/// float64, so that nothing is rounded on the way.
[[nodiscard]] GlobalState StateOf(std::string_view strategy, int64_t rank,
                                  const std::vector<LinearSite>& sites,
                                  const std::vector<LowRank>& factors);
/// One that has learned nothing. Rank 0: as much as any layer can hold.
[[nodiscard]] GlobalState EmptyState(std::string_view strategy,
                                     const std::vector<LinearSite>& sites, int64_t rank = 0);

/// Updates under other weights, which need not add up to 1: what a robust rule makes of a round.
class Reweighed final : public UpdateSource {
 public:
  Reweighed(const UpdateSource& all, std::vector<double> coefficients)
      : all_(all), coefficients_(std::move(coefficients)) {}
  [[nodiscard]] size_t size() const override { return coefficients_.size(); }
  [[nodiscard]] const ClientPlan& plan(size_t k) const override { return all_.plan(k); }
  [[nodiscard]] double weight(size_t k) const override { return coefficients_[k]; }
  [[nodiscard]] double update_norm(size_t k) const override { return all_.update_norm(k); }
  [[nodiscard]] Result<LowRank> Factors(size_t k, size_t site) const override {
    return all_.Factors(k, site);
  }

 private:
  const UpdateSource& all_;
  std::vector<double> coefficients_;
};

/// Survey and MergeSite of the strategy that the settings name.
[[nodiscard]] SiteMerge MergeLayer(const StrategySettings& settings, const GlobalState& global,
                                   const UpdateSource& updates, size_t layer, uint64_t round = 1);

/// ⟨D_i, D_j⟩ [K×K] as the round computes them, under a state that has learned nothing.
[[nodiscard]] at::Tensor GramOf(const UpdateSource& updates, const std::vector<LinearSite>& sites);

/// What the round makes of it under these robust settings: clients' coefficients, and the product
/// that is published at each layer in float64, the same by flora and by exact-svd. MergeRound must
/// choose the same and publish the same to float32.
struct RobustRound {
  ClientChoice choice;
  std::vector<at::Tensor> dW_OI;
};
[[nodiscard]] RobustRound RunRobust(const RobustSettings& robust, const UpdateSource& updates,
                                    const std::vector<LinearSite>& sites);

}  // namespace weft::testing
