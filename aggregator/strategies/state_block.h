#pragma once
// GlobalState ⇄ bytes: a TensorBlock with the global adapter as its "adapter" section (so anything
// that reads bundles reads it), what rule and server optimiser remember as the whole tensors of a
// "memory" section, and a "rule" section without tensors that holds the strategy's name
// and the spec the run began with. Saving and restoring a strategy is these bytes.

#include "aggregator/strategies/strategy.h"

namespace weft {

struct EncodedState {
  Blob bytes;
  std::string adapter_sha256;  // the global adapter's name, as AdapterSha256 gives it
};
[[nodiscard]] Result<EncodedState> EncodeState(const GlobalState& state);

/// Its tensors look at `bytes`: for reading only. kInvalidArgument for bytes that are no state;
/// kFailedPrecondition if another strategy wrote them (an empty `strategy` takes any).
[[nodiscard]] Result<GlobalState> DecodeState(const Blob& bytes, std::string_view strategy);

}  // namespace weft
