#pragma once
// The rules there are, each in its own .cc; only registry.cc needs this.

#include "aggregator/strategies/strategy.h"

namespace weft {

[[nodiscard]] const Strategy& FedAvgStrategy();
[[nodiscard]] const Strategy& FloraStrategy();
[[nodiscard]] const Strategy& ExactSvdStrategy();
[[nodiscard]] const Strategy& NativeStrategy();

}  // namespace weft
