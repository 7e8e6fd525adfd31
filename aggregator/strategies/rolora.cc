// rolora: B trains in odd rounds, A in even ones (RoLoRA, Chen et al. 2025): every round is exact,
// and over two of them both factors learn.

#include "aggregator/strategies/frozen_side.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

class RoLora final : public FrozenSideStrategy {
 public:
  std::string_view name() const override { return "rolora"; }

 protected:
  std::string TrainedIn(uint64_t round) const override { return round % 2 == 1 ? "B" : "A"; }
};

}  // namespace

const Strategy& RoLoraStrategy() {
  static const RoLora strategy;
  return strategy;
}

}  // namespace weft
