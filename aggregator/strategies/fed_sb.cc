// fed-sb (Singhal et al. 2025): clients train and ship the cores R [r×r] of LoRA-XS alone, whose
// mean is the exact mean of the products; r² numbers a layer both ways, whatever its size and
// however many clients there are. The paper takes the frozen bases from a first full gradient; here
// they are drawn from a seed, which looks at nobody's data and sends nothing.

#include "aggregator/strategies/own_coordinates.h"
#include "aggregator/strategies/rules.h"
#include "common/base/str.h"

namespace weft {
namespace {

class FedSb final : public OwnCoordinates {
 public:
  std::string_view name() const override { return "fed-sb"; }
  StrategyTraits traits() const override {
    return {.needs_each_update = false, .exact = true, .own_coordinates = true};
  }

  Result<GlobalState> Init(const AdapterSpec& spec, std::span<const LinearSite> sites,
                           uint64_t seed) const override {
    if (spec.method != "lora-xs") {
      return InvalidArgument(Str("[fed-sb] adapter method \"", spec.method,
                                 "\": it averages the cores of \"lora-xs\"; set adapter.method"));
    }
    return OwnCoordinates::Init(spec, sites, seed);
  }
};

}  // namespace

const Strategy& FedSbStrategy() {
  static const FedSb strategy;
  return strategy;
}

}  // namespace weft
