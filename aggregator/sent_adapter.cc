#include "aggregator/sent_adapter.h"

#include "aggregator/cohort.h"
#include "common/adapters/distance.h"
#include "common/codec/precision.h"

namespace weft {
namespace {

// Whole modules know no ranks: every client is sent all of them, in what it trains if it is sent
// that, else in what lies frozen beside it.
void SendDense(const std::vector<NamedTensor>& dense, AdapterBundle& bundle) {
  if (bundle.frozen) bundle.frozen->dense.clear();
  (bundle.adapter ? bundle.adapter : bundle.frozen)->dense = dense;
}

// As one who is sent it in that codec decodes it: float32 on the CPU.
Result<AdapterState> AsDecoded(const AdapterState& state, const Codec& codec) {
  WEFT_TRY_ASSIGN(const BlockSection section, EncodeAdapter(state, kAdapterRole, codec));
  return DecodeAdapter(section, codec, at::kCPU);
}

}  // namespace

Result<AdapterBundle> CutBundle(const Strategy& strategy, const GlobalState& global,
                                const ClientPlan& client) {
  WEFT_TRY_ASSIGN(AdapterBundle bundle, strategy.Cut(global, client));
  SendDense(global.adapter.dense, bundle);
  bundle.base_change = global.base_change;
  return bundle;
}

Result<double> CodecError(const AdapterState& state, const Codec& codec) {
  if (&codec == &Float32Codec()) return 0;
  WEFT_TRY_ASSIGN(const AdapterState decoded, AsDecoded(state, codec));
  WEFT_TRY_ASSIGN(const LowRankAdapter whole, Lower(state));
  WEFT_TRY_ASSIGN(const LowRankAdapter rounded, Lower(decoded));
  const double distance = DistanceBetween(rounded, whole);
  return distance == 0 ? 0 : distance / DistanceBetween(whole, {});
}

Result<std::shared_ptr<const AdapterState>> SentAdapters::For(const GlobalState& global,
                                                              const ClientPlan& client) {
  const auto [entry, is_new] = cut_.try_emplace(CutKey(client));
  if (!is_new) return entry->second;
  WEFT_TRY_ASSIGN(const AdapterBundle bundle, CutBundle(strategy_, global, client));
  if (!bundle.adapter) return entry->second;
  WEFT_TRY_ASSIGN(AdapterState decoded, AsDecoded(*bundle.adapter, Float32Codec()));
  entry->second = std::make_shared<const AdapterState>(std::move(decoded));
  return entry->second;
}

}  // namespace weft
