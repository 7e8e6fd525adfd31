#pragma once
// What a merge looks at: the state that the round's cohort started from, and its updates as they
// lie in the spool.

#include <memory>

#include "aggregator/jobs.h"
#include "aggregator/spooled_updates.h"
#include "aggregator/strategies/strategy.h"

namespace weft {

struct MergeInputs {
  const Strategy* strategy = nullptr;
  GlobalState global;
  std::unique_ptr<SpooledUpdates> updates;
};

/// Reads both, and cuts again what the clients were sent where their updates are changes in that.
[[nodiscard]] Result<MergeInputs> OpenMerge(const MergeJob& job);

}  // namespace weft
