#pragma once
// SpooledUpdates: a round's accepted updates as the strategies pull them, decoded one site at a
// time from bytes that stay mapped.

#include <memory>
#include <vector>

#include "aggregator/strategies/strategy.h"
#include "common/plan/round_plan.h"

namespace weft {

/// One update: what it says, what was asked of its client, and its bytes.
struct ReceivedUpdate {
  UpdateHeader header;
  ClientPlan client;
  Blob payload;
};

class SpooledUpdates final : public UpdateSource {
 public:
  /// Sorts by client name and checks every block's structure against its plan: a spool that was
  /// damaged since admission is refused here, by client. Values were looked at when the update was
  /// admitted; a merge refuses to publish what is not finite.
  [[nodiscard]] static Result<std::unique_ptr<SpooledUpdates>> Open(
      std::vector<ReceivedUpdate> updates, std::span<const LinearSite> sites,
      const std::string& weighting, uint64_t max_examples);

  [[nodiscard]] size_t size() const override { return updates_.size(); }
  [[nodiscard]] const ClientPlan& plan(size_t client) const override {
    return updates_[client].client;
  }
  [[nodiscard]] double weight(size_t client) const override { return weights_[client]; }
  [[nodiscard]] Result<LowRank> Factors(size_t client, size_t site) const override;

 private:
  std::vector<ReceivedUpdate> updates_;
  std::vector<TensorBlock> blocks_;
  std::vector<double> weights_;
};

}  // namespace weft
