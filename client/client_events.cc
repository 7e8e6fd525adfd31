#include "client/client_events.h"

#include <nlohmann/json.hpp>

#include "common/plan/json.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;

std::string Line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

EventDraft ClientJoinedEvent(const RunId& run, RoundId version) {
  return {"client-joined", Line({{"run", run.name}, {"version", version.number}})};
}

EventDraft ClientTrainedEvent(const UpdateHeader& header) {
  return {"client-trained", ToJson(header)};
}

EventDraft ClientRoundEvent(RoundId round, const std::string& outcome, const std::string& reason) {
  return {"client-round",
          Line({{"round", round.number}, {"outcome", outcome}, {"reason", reason}})};
}

EventDraft ClientEvaluatedEvent(const EvalReport& report) {
  return {"client-evaluated", ToJson(report)};
}

EventDraft ClientLeftEvent(const std::string& outcome, const std::string& reason) {
  return {"client-left", Line({{"outcome", outcome}, {"reason", reason}})};
}

}  // namespace weft
