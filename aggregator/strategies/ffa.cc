// ffa: A stays as it was drawn, all clients train B (FFA-LoRA, Sun et al. 2024).

#include "aggregator/strategies/frozen_side.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

class Ffa final : public FrozenSideStrategy {
 public:
  std::string_view name() const override { return "ffa"; }

 protected:
  std::string TrainedIn(uint64_t) const override { return "B"; }
};

}  // namespace

const Strategy& FfaStrategy() {
  static const Ffa strategy;
  return strategy;
}

}  // namespace weft
