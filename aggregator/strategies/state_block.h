#pragma once
// GlobalState ⇄ bytes: a TensorBlock with the global adapter as its "adapter" section (so anything
// that reads bundles reads it) and a "rule" section without tensors that holds the strategy's name
// and the spec the run began with. Saving and restoring a strategy is these bytes.

#include "aggregator/strategies/strategy.h"

namespace weft {

[[nodiscard]] Result<Blob> EncodeState(const GlobalState& state);

/// kInvalidArgument for bytes that are no state; kFailedPrecondition if another strategy wrote them
/// (an empty `strategy` takes any).
[[nodiscard]] Result<GlobalState> DecodeState(const Blob& bytes, std::string_view strategy);

}  // namespace weft
