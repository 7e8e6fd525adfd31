// native: every method's updates in that method's coordinates, so that what layers share stays
// shared: MSPLoRA tier by tier, KaSA by stacking and QR–SVD, NOLA one side at a time, LoRA-XS by
// its cores.

#include "aggregator/strategies/own_coordinates.h"
#include "aggregator/strategies/rules.h"

namespace weft {
namespace {

class Native final : public OwnCoordinates {
 public:
  std::string_view name() const override { return "native"; }
};

}  // namespace

const Strategy& NativeStrategy() {
  static const Native strategy;
  return strategy;
}

}  // namespace weft
