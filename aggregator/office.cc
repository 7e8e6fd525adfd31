#include "aggregator/office.h"

#include <iomanip>
#include <sstream>
#include <utility>

#include "aggregator/strategies/strategy.h"
#include "common/base/str.h"
#include "common/wire/message_codec.h"

namespace weft {

Office::Office(Env env_in, AggregatorOptions options_in)
    : env(env_in), options(std::move(options_in)) {
  run = RunId{options.settings.run.name};
}

bool Office::Send(const ClientId& to, const Message& message, const Blob& chunk) {
  const Status status = env.transport.Send(to, Frames{EncodeMessage(message), chunk});
  if (status.ok()) return true;
  env.log.Debug("message not sent",
                {{"to", to}, {"message", MessageName(message)}, {"why", status}});
  return status.code() != Code::kResourceExhausted;
}

void Office::Record(std::vector<RunEvent> events, std::function<void()> then) {
  std::vector<EventDraft> drafts;
  drafts.reserve(events.size());
  for (const RunEvent& event : events) drafts.push_back(ToDraft(event));
  ++pending_writes_;
  env.store.Append(std::move(drafts), [this, then = std::move(then)](const Status& status) {
    --pending_writes_;
    if (!status.ok()) {
      GiveUp(status.Within("[ledger] the run's log cannot be written"));
      return;
    }
    if (then) then();
  });
}

const Strategy& Office::strategy() const {
  const Result<const Strategy*> found = FindStrategy(options.settings.strategy.name);
  WEFT_CHECK(found.ok(), found.status());
  return **found;
}

void Office::GiveUp(const Status& why) {
  if (!over_ && on_give_up) on_give_up(why);
}

std::string RoundName(RoundId round) {
  std::ostringstream name;
  name << "round-" << std::setw(4) << std::setfill('0') << round.number;
  return std::move(name).str();
}

std::string StateBlobName(RoundId version) { return "state/" + RoundName(version); }

std::string PosteriorBlobName(RoundId version) {
  return "posterior/" + RoundName(version) + ".safetensors";
}

std::string ForwardedBlobName(RoundId round) { return "forwarded/" + RoundName(round); }

std::string SpoolName(RoundId round, const ClientId& client) {
  return "spool/" + RoundName(round) + "/" + client.name;
}

}  // namespace weft
