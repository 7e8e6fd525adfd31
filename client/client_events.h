#pragma once
// The client's own log: one event per change that its operator may ask about. Same ledger format as
// a run's, other kinds.

#include <string>

#include "common/plan/round_plan.h"
#include "common/runtime/store.h"

namespace weft {

[[nodiscard]] EventDraft ClientJoinedEvent(const RunId& run, RoundId version);
[[nodiscard]] EventDraft ClientTrainedEvent(const UpdateHeader& header);
/// An update's verdict, a round that could not be delivered, or one that closed without it.
[[nodiscard]] EventDraft ClientRoundEvent(RoundId round, const std::string& outcome,
                                          const std::string& reason);
[[nodiscard]] EventDraft ClientEvaluatedEvent(const EvalReport& report);
[[nodiscard]] EventDraft ClientLeftEvent(const std::string& outcome, const std::string& reason);

}  // namespace weft
