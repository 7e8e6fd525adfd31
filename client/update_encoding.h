#pragma once
// From a trained adapter to an update's bytes: the change in what was sent, with what earlier
// updates left out of theirs, of it the largest elements, in the plan's codec. What that leaves out
// stays at the client and is owed to the next update (error feedback: Seide et al. 2014; top-k:
// Stich et al. 2018, "Sparsified SGD with Memory").

#include <optional>

#include "common/adapters/adapter_state.h"
#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/plan/round_plan.h"

namespace weft {

struct EncodedUpdate {
  Blob payload;
  /// What the update leaves out; nothing where the plan keeps no account of it.
  std::optional<AdapterState> residual = std::nullopt;
};

struct TrainedUpdate {
  AdapterState shipped;
  const AdapterState* sent = nullptr;  // null: nothing to start from, the update is whole
  std::optional<AdapterState> owed;    // by the updates before; of the same layout
};

/// The norm of what is owed is kept to this multiple of the norm of the round's own change.
inline constexpr double kResidualNormMax = 10;

/// kInvalidArgument if a value does not fit the codec or layouts differ.
[[nodiscard]] Result<EncodedUpdate> EncodeTrained(const RoundPlan& plan,
                                                  const TrainedUpdate& trained);

/// ‖state‖ over all its numbers, each shared tensor counted once.
[[nodiscard]] double NormOf(const AdapterState& state);

}  // namespace weft
