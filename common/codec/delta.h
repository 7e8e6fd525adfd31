#pragma once
// An update as what changed: tensor by tensor, what a client trained less what it was sent. A
// tensor that the method does not train is then zero, which takes no room on the wire and which no
// codec shifts; and what a codec rounds is the change, not the sum of all rounds before.

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"

namespace weft {

/// `state` − `sent`, float32, with the spec and the shared tensors of `state`. kInvalidArgument if
/// their layouts differ.
[[nodiscard]] Result<AdapterState> ChangeOf(const AdapterState& state, const AdapterState& sent);

/// One tensor of `sent` with its change. Where the change is zero, sent's own bits.
[[nodiscard]] at::Tensor WithChange(const at::Tensor& sent, const at::Tensor& change);

/// `sent` with `change`: ChangeOf undone, to float32's rounding.
[[nodiscard]] Result<AdapterState> WithChange(const AdapterState& sent, const AdapterState& change);

}  // namespace weft
