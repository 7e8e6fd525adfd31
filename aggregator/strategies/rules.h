#pragma once
// The rules there are, each in its own .cc; only registry.cc needs this.

#include "aggregator/strategies/strategy.h"

namespace weft {

[[nodiscard]] const Strategy& ExactSvdStrategy();
[[nodiscard]] const Strategy& FedAskStrategy();
[[nodiscard]] const Strategy& FedAvgStrategy();
[[nodiscard]] const Strategy& FedExStrategy();
[[nodiscard]] const Strategy& FedMomentumStrategy();
[[nodiscard]] const Strategy& FedRotStrategy();
[[nodiscard]] const Strategy& FedSbStrategy();
[[nodiscard]] const Strategy& FedSvdStrategy();
[[nodiscard]] const Strategy& FfaStrategy();
[[nodiscard]] const Strategy& FloristStrategy();
[[nodiscard]] const Strategy& FloraStrategy();
[[nodiscard]] const Strategy& HetLoraStrategy();
[[nodiscard]] const Strategy& LoraFairStrategy();
[[nodiscard]] const Strategy& NativeStrategy();
[[nodiscard]] const Strategy& RaFloraStrategy();
[[nodiscard]] const Strategy& RblaStrategy();
[[nodiscard]] const Strategy& RoLoraStrategy();

}  // namespace weft
