#pragma once
// What a client is sent for a round, as tensors: cut again where a merge needs it, so that it need
// not be kept. A function of the state, the strategy and the client's plan.

#include <map>
#include <memory>
#include <string>

#include "aggregator/strategies/strategy.h"

namespace weft {

/// The client's bundle: the strategy's cut, the global's whole modules and base change.
[[nodiscard]] Result<AdapterBundle> CutBundle(const Strategy& strategy, const GlobalState& global,
                                              const ClientPlan& client);

/// ‖what wire.down-codec makes of `state` − state‖_F over ‖state‖_F, of the lowered forms.
[[nodiscard]] Result<double> CodecError(const AdapterState& state, const Codec& codec);

/// The adapters that a round's clients started from, each cut once: what their changes are added
/// to. Before wire.down-codec rounded them: who changes nothing then leaves the global adapter as
/// it is, and its rounding decides where a client's gradients are taken, but is not merged.
class SentAdapters {
 public:
  explicit SentAdapters(const Strategy& strategy) : strategy_(strategy) {}

  /// Float32 on the CPU, to the bit what a bundle in float32 holds; null where it was sent none.
  /// `global`: what was published when the client was asked.
  [[nodiscard]] Result<std::shared_ptr<const AdapterState>> For(const GlobalState& global,
                                                                const ClientPlan& client);

 private:
  const Strategy& strategy_;
  std::map<std::string, std::shared_ptr<const AdapterState>> cut_;  // by CutKey
};

}  // namespace weft
