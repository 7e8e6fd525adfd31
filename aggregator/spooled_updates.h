#pragma once
// SpooledUpdates: a round's accepted updates as the strategies pull them, decoded one site at a
// time.

#include <functional>
#include <memory>
#include <vector>

#include "aggregator/strategies/strategy.h"
#include "common/adapters/adapter.h"
#include "common/plan/round_plan.h"

namespace weft {

/// One update: what it says, what was asked of its client, and its bytes.
struct ReceivedUpdate {
  UpdateHeader header;
  ClientPlan client;
  Blob payload;
  double update_norm = 0;  // as admission measured it
  /// Reads bytes [offset, offset + length) of the payload anew. Where there is one, `payload` is
  /// let go of once its structure is known, so that a merge holds one site of every update in
  /// memory and not the whole round.
  std::function<Result<Blob>(uint64_t offset, uint64_t length)> read = {};
  /// What the client was sent, if the update is what changed in it; null: the update is whole.
  std::shared_ptr<const AdapterState> sent = nullptr;
  /// What was published when the client was asked, if that was an earlier version; null: the same.
  std::shared_ptr<const GlobalState> older_global = nullptr;
  double discount = 1;  // the share of its change that counts although it comes late
};

class SpooledUpdates final : public UpdateSource {
 public:
  /// Sorts by client name and checks every block's structure against its plan: a spool that was
  /// damaged since admission is refused here, by client. Values were looked at when the update was
  /// admitted; a merge refuses to publish what is not finite.
  [[nodiscard]] static Result<std::unique_ptr<SpooledUpdates>> Open(
      std::vector<ReceivedUpdate> updates, std::span<const LinearSite> sites,
      const std::string& weighting, uint64_t max_examples,
      std::span<const TensorLayout> dense = {});

  [[nodiscard]] size_t size() const override { return updates_.size(); }
  [[nodiscard]] const ClientPlan& plan(size_t client) const override {
    return updates_[client].client;
  }
  [[nodiscard]] double weight(size_t client) const override { return weights_[client]; }
  [[nodiscard]] double update_norm(size_t client) const override {
    return updates_[client].update_norm;
  }
  [[nodiscard]] const GlobalState* older_global(size_t client) const override {
    return updates_[client].older_global.get();
  }
  [[nodiscard]] double discount(size_t client) const override { return updates_[client].discount; }
  [[nodiscard]] Result<LowRank> Factors(size_t client, size_t site) const override;
  [[nodiscard]] Result<PlainFactors> Plain(size_t client, size_t site) const override;
  [[nodiscard]] Result<AdapterState> State(size_t client) const override;
  [[nodiscard]] Result<std::vector<NamedTensor>> Dense(size_t client) const override;

 private:
  // Where the tensors of each site lie in their payload.
  struct Place {
    size_t offset;
    size_t size;
  };
  using Offsets = std::vector<std::vector<Place>>;  // of each site, and of the dense part
  /// Takes the bytes out of the block and notes where they were.
  static Offsets LetGo(const Blob& payload, TensorBlock& block);
  /// The adapter or the change that the client's bytes hold.
  [[nodiscard]] Result<AdapterState> Stored(size_t client) const;
  /// One site's tensors as the client has them now, float32.
  [[nodiscard]] Result<SiteState> Site(size_t client, size_t site) const;
  /// The bytes of one site's tensors, in order.
  [[nodiscard]] Result<std::vector<Blob>> ReadSite(size_t client, size_t site) const;

  std::vector<ReceivedUpdate> updates_;
  std::vector<TensorBlock> blocks_;
  std::vector<Offsets> offsets_;  // of updates that are read anew; else empty
  std::vector<double> weights_;
};

}  // namespace weft
