#include "client/client_node.h"

#include <utility>

#include "client/client_events.h"
#include "client/context.h"
#include "client/eval_work.h"
#include "client/round_work.h"
#include "client/session.h"
#include "common/base/str.h"
#include "common/wire/message_codec.h"

namespace weft {
namespace {

constexpr Nanos kTick = std::chrono::seconds(1);

}  // namespace

struct ClientNode::Impl {
  Impl(Env env, ClientOptions options)
      : context(env, std::move(options)),
        session(context, {.joined = [this] { OnJoined(); },
                          .lost = [this] { rounds.OnLost(); },
                          .refused = [this](const Status& why) { Refused(why); }}),
        rounds(context),
        evaluations(context) {}
  ~Impl() { context.env.clock.Cancel(timer); }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  void OnJoined();
  void Refused(const Status& why);
  void Leave(const Status& why, const std::string& word);
  void Tick();
  void SetTick();
  void Dispatch(const Message& message, const Blob& chunk);
  void OnRunEnded(const RunEnded& ended);

  ClientContext context;
  Session session;
  RoundWork rounds;
  EvalWork evaluations;
  TimerId timer;
  Status outcome;
  bool refused = false;
};

ClientNode::ClientNode(Env env, ClientOptions options)
    : impl_(std::make_unique<Impl>(env, std::move(options))) {}

ClientNode::~ClientNode() = default;

Status ClientNode::Start() {
  Impl& node = *impl_;
  if (node.context.options.name.name.empty()) {
    return InvalidArgument("[client] name: got none, wanted the site's name on the allow-list");
  }
  node.context.env.transport.SetReceiver(this);
  node.SetTick();
  node.session.Connect();
  return OkStatus();
}

void ClientNode::Stop(const Status& why) {
  Impl& node = *impl_;
  if (node.context.over()) return;
  node.context.Send(Goodbye{.reason = why.message()});
  node.Leave(Cancelled(why.message()), "stopped");
}

bool ClientNode::Finished() const {
  return impl_->context.over() && impl_->context.pending_writes() == 0;
}

Status ClientNode::Outcome() const { return impl_->outcome; }

bool ClientNode::Refused() const { return impl_->refused; }

void ClientNode::OnPeerGone(const ClientId& /*peer*/, const Status& why) {
  if (!impl_->context.over()) impl_->session.OnLinkGone(why);
}

void ClientNode::OnFrames(const ClientId& /*from*/, Frames frames) {
  Impl& node = *impl_;
  if (node.context.over()) return;
  const Result<Message> message = DecodeMessage(frames.control);
  if (!message.ok()) {
    // Of a newer kind: ignored. Malformed: an authenticated aggregator that is broken; there is
    // nobody else to turn to, so it is only noted.
    node.context.env.log.Warn("message ignored", {{"why", message.status()}});
    return;
  }
  node.session.Heard();
  node.Dispatch(*message, frames.chunk);
}

void ClientNode::Impl::Dispatch(const Message& message, const Blob& chunk) {
  if (const auto* welcome = std::get_if<Welcome>(&message)) return session.OnWelcome(*welcome);
  if (const auto* refusal = std::get_if<Refusal>(&message)) return session.OnRefusal(*refusal);
  if (const auto* ended = std::get_if<RunEnded>(&message)) return OnRunEnded(*ended);
  if (std::holds_alternative<Heartbeat>(message)) return;
  if (!context.joined) {
    context.env.log.Debug("message before the welcome ignored",
                          {{"message", MessageName(message)}});
    return;
  }
  if (const auto* offer = std::get_if<RoundOffer>(&message)) return rounds.OnOffer(*offer);
  if (const auto* part = std::get_if<Chunk>(&message)) {
    rounds.OnChunk(*part, chunk);
    evaluations.OnChunk(*part, chunk);
    return;
  }
  if (const auto* request = std::get_if<ChunkRequest>(&message)) {
    const Status status = rounds.OnChunkRequest(*request);
    if (!status.ok()) context.env.log.Warn("request ignored", {{"why", status}});
    return;
  }
  if (const auto* verdict = std::get_if<UpdateVerdict>(&message)) return rounds.OnVerdict(*verdict);
  if (const auto* closed = std::get_if<RoundClosed>(&message)) return rounds.OnClosed(*closed);
  if (const auto* request = std::get_if<EvalRequest>(&message)) {
    return evaluations.OnRequest(*request);
  }
  context.env.log.Warn("message ignored: only a client may send it",
                       {{"message", MessageName(message)}});
}

void ClientNode::Impl::OnJoined() {
  context.Record(ClientJoinedEvent(context.welcome.run, context.welcome.version));
  context.Send(context.Doing());
  rounds.OnJoined();
  evaluations.OnJoined();
}

void ClientNode::Impl::Refused(const Status& why) {
  context.env.log.Error("refused by the aggregator", {{"why", why}});
  refused = true;
  Leave(why, "refused");
}

void ClientNode::Impl::OnRunEnded(const RunEnded& ended) {
  context.Send(Goodbye{.reason = "the run has ended"});
  context.env.log.Info("run ended", {{"state", ended.state}, {"reason", ended.reason}});
  if (ended.state == "completed") return Leave(OkStatus(), "completed");
  if (ended.state == "stopped") {
    return Leave(Cancelled(Str("the run was stopped: ", ended.reason)), "stopped");
  }
  Leave(Unavailable(Str("the run failed: ", ended.reason)), "failed");
}

void ClientNode::Impl::Leave(const Status& why, const std::string& word) {
  if (context.over()) return;
  outcome = why;
  rounds.Stop();
  evaluations.Stop();
  session.Close();
  context.SetOver();
  context.env.clock.Cancel(timer);
  context.Record(ClientLeftEvent(word, why.message()));
}

void ClientNode::Impl::SetTick() {
  timer = context.env.clock.At(context.env.clock.Now() + kTick, [this] { Tick(); });
}

void ClientNode::Impl::Tick() {
  if (context.over()) return;
  rounds.Tick();
  evaluations.Tick();
  SetTick();
}

}  // namespace weft
