#include "client/context.h"

#include <utility>

#include "common/wire/message_codec.h"

namespace weft {

ClientContext::ClientContext(Env env_in, ClientOptions options_in)
    : env(env_in), options(std::move(options_in)) {
  welcome.heartbeat_ms = 5000;
  welcome.gone_after_ms = static_cast<uint32_t>(ToSeconds(options.gone_after) * 1000);
}

bool ClientContext::Send(const Message& message, const Blob& chunk) {
  const Status status = env.transport.Send(kAggregator, Frames{EncodeMessage(message), chunk});
  if (status.ok()) return true;
  env.log.Debug("message not sent", {{"message", MessageName(message)}, {"why", status}});
  return false;
}

void ClientContext::Record(EventDraft event) {
  ++pending_writes_;
  env.store.Append({std::move(event)}, [this](const Status& status) {
    --pending_writes_;
    if (!status.ok()) env.log.Warn("local log not written", {{"why", status}});
  });
}

Done ClientContext::Track(Done done) {
  ++pending_writes_;
  return [this, done = std::move(done)](Status status) {
    --pending_writes_;
    if (!over_ && done) done(std::move(status));
  };
}

void ClientContext::SetPhase(RoundId round, std::string phase,
                             std::shared_ptr<JobControl> control) {
  const bool news = round != round_ || phase != phase_;
  round_ = round;
  phase_ = std::move(phase);
  control_ = std::move(control);
  if (news && joined && !over_) Send(Doing());
}

Heartbeat ClientContext::Doing() const {
  return Heartbeat{
      .round = round_, .phase = phase_, .progress = control_ ? control_->progress.load() : 0.0F};
}

}  // namespace weft
