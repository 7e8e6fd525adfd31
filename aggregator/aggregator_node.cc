#include "aggregator/aggregator_node.h"

#include <utility>

#include "aggregator/admission.h"
#include "aggregator/office.h"
#include "aggregator/recovery.h"
#include "aggregator/run_course.h"
#include "aggregator/strategies/strategy.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/runtime/blob_name.h"
#include "common/wire/message_codec.h"

namespace weft {
namespace {

constexpr Nanos kTick = std::chrono::seconds(1);
// How long a run that has ended waits for its members' goodbyes.
constexpr Nanos kFarewell = std::chrono::seconds(5);

bool OnlyAnAggregatorSends(const Message& message) {
  return std::visit(
      [](const auto& m) {
        using M = std::decay_t<decltype(m)>;
        return std::is_same_v<M, Welcome> || std::is_same_v<M, Refusal> ||
               std::is_same_v<M, RoundOffer> || std::is_same_v<M, RoundClosed> ||
               std::is_same_v<M, UpdateVerdict> || std::is_same_v<M, EvalRequest> ||
               std::is_same_v<M, RunEnded>;
      },
      message);
}

}  // namespace

struct AggregatorNode::Impl {
  Impl(Env env, AggregatorOptions options, const MakeCourse& make_course)
      : office(env, std::move(options)), course(make_course(office)) {
    office.on_give_up = [this](const Status& why) {
      office.env.log.Error("the run is given up", {{"why", why}});
      End(kRunFailed, why);
    };
  }

  void End(const std::string& state, const Status& why);
  void Tick();
  void SetTick();
  void CheckStopRequest();

  void On(const ClientId& from, const Hello& hello);
  void On(const ClientId& from, const Heartbeat& heartbeat);
  void On(const ClientId& from, const Goodbye& goodbye);
  void On(const ClientId& from, const UpdateOffer& offer);
  void On(const ClientId& from, const RoundFailed& failed);
  void On(const ClientId& from, const EvalReply& reply);
  void On(const ClientId& from, const ChunkRequest& request);
  void On(const ClientId& from, const Chunk& chunk, const Blob& bytes);

  [[nodiscard]] std::optional<Refusal> MayJoin(const ClientId& from, const Hello& hello) const;
  void Lose(const ClientId& client, const std::string& why);
  void CutOff(const ClientId& peer, const Status& why);

  Office office;
  std::unique_ptr<Course> course;
  bool started = false;
  TimerId timer;
  bool leave_now = false;  // stopped while it stayed up for late clients
  Status outcome;
};

// ---- the node's life ----

AggregatorNode::AggregatorNode(Env env, AggregatorOptions options)
    : AggregatorNode(env, std::move(options),
                     [](Office& office) { return std::make_unique<RunCourse>(office); }) {}

AggregatorNode::AggregatorNode(Env env, AggregatorOptions options, const MakeCourse& make_course)
    : impl_(std::make_unique<Impl>(env, std::move(options), make_course)) {}

AggregatorNode::~AggregatorNode() { impl_->office.env.clock.Cancel(impl_->timer); }

Status AggregatorNode::Start() {
  RunPosition position;
  WEFT_TRY(impl_->office.env.store.EachEvent(
      [&](const LedgerEvent& event) { return Advance(position, event); }));
  impl_->office.env.transport.SetReceiver(this);
  impl_->started = true;
  impl_->SetTick();
  WEFT_TRY(impl_->course->Start(std::move(position)));
  return OkStatus();
}

void AggregatorNode::Stop(const Status& why) {
  impl_->office.env.log.Info("stopping", {{"why", why}});
  impl_->End(kRunStopped, Cancelled(why.message()));
}

bool AggregatorNode::Finished() const {
  const Impl& node = *impl_;
  if (!node.course->ended() || node.office.pending_writes() > 0) return false;
  if (node.office.options.keep_running && node.outcome.ok() && !node.leave_now) return false;
  return node.office.members.CountPresent() == 0 || node.leave_now ||
         node.office.env.clock.Now() - node.course->ended_at() >= kFarewell;
}

Status AggregatorNode::Outcome() const { return impl_->outcome; }

RoundId AggregatorNode::version() const { return impl_->office.version; }

void AggregatorNode::Impl::End(const std::string& state, const Status& why) {
  if (course->ended()) {
    leave_now = leave_now || state == kRunStopped;
    return;
  }
  outcome = why;
  course->End(state, why.message());
}

void AggregatorNode::Impl::SetTick() {
  timer = office.env.clock.At(office.env.clock.Now() + kTick, [this] { Tick(); });
}

void AggregatorNode::Impl::Tick() {
  const Nanos now = office.env.clock.Now();
  if (!course->ended()) CheckStopRequest();
  for (const ClientId& client :
       office.members.Silent(now, Seconds(office.options.settings.server.gone_after_s))) {
    Lose(client, Str("nothing heard for ", office.options.settings.server.gone_after_s, " s"));
  }
  course->Tick();
  const bool over = course->ended() && office.members.CountPresent() == 0;
  if (!over || office.options.keep_running) SetTick();
}

void AggregatorNode::Impl::CheckStopRequest() {
  if (!office.options.stop_requested) return;
  if (const std::optional<std::string> reason = office.options.stop_requested()) {
    office.env.log.Info("asked to stop", {{"reason", *reason}});
    End(kRunStopped, Cancelled(*reason));
  }
}

// ---- peers ----

void AggregatorNode::OnPeerGone(const ClientId& peer, const Status& why) {
  impl_->Lose(peer, why.message());
}

void AggregatorNode::OnFrames(const ClientId& from, Frames frames) {
  Impl& node = *impl_;
  const Result<Message> message = DecodeMessage(frames.control);
  if (!message.ok()) {
    if (message.status().code() == Code::kFailedPrecondition) {
      node.office.env.log.Debug("message of a newer kind ignored", {{"from", from}});
      return;
    }
    return node.CutOff(from, message.status());
  }
  if (OnlyAnAggregatorSends(*message)) {
    return node.CutOff(from,
                       InvalidArgument(Str("[protocol] client ", from, ": got ",
                                           MessageName(*message),
                                           ", which only an aggregator may send")));
  }
  if (const Hello* hello = std::get_if<Hello>(&*message)) return node.On(from, *hello);
  Member* member = node.office.members.Find(from);
  if (member == nullptr || !member->present) {
    // It joined a process that is no more, or was taken for gone: it has to say hello again.
    if (std::holds_alternative<Heartbeat>(*message) ||
        std::holds_alternative<UpdateOffer>(*message)) {
      node.office.Send(from, Refusal{.code = Code::kFailedPrecondition,
                                     .reason = "not joined: say hello first",
                                     .retry = true});
    }
    return;
  }
  member->heard = node.office.env.clock.Now();
  if (const auto* chunk = std::get_if<Chunk>(&*message)) {
    return node.On(from, *chunk, frames.chunk);
  }
  if (const auto* heartbeat = std::get_if<Heartbeat>(&*message)) return node.On(from, *heartbeat);
  if (const auto* offer = std::get_if<UpdateOffer>(&*message)) return node.On(from, *offer);
  if (const auto* failed = std::get_if<RoundFailed>(&*message)) return node.On(from, *failed);
  if (const auto* reply = std::get_if<EvalReply>(&*message)) return node.On(from, *reply);
  if (const auto* asked = std::get_if<ChunkRequest>(&*message)) return node.On(from, *asked);
  if (const auto* goodbye = std::get_if<Goodbye>(&*message)) node.On(from, *goodbye);
}

std::optional<Refusal> AggregatorNode::Impl::MayJoin(const ClientId& from,
                                                     const Hello& hello) const {
  if (const Status name = CheckBlobName(SpoolName(RoundId{1}, from)); !name.ok()) {
    return Refusal{
        .code = Code::kInvalidArgument,
        .reason = Str("[join] client name: ", name.message(), "; rename it in the allow-list")};
  }
  if (!office.members.Present(from) && office.members.CountPresent() >= limits::kPeersMax) {
    return Refusal{.code = Code::kResourceExhausted,
                   .reason = Str("[join] ", limits::kPeersMax, " members are here already"),
                   .retry = true};
  }
  return CheckHello(from, hello,
                    JoinTerms{.base = office.options.base,
                              .method = office.options.settings.adapter.method,
                              .rank = office.strategy().traits().mixed_ranks
                                          ? 0
                                          : office.options.settings.adapter.rank,
                              .mixed_methods = office.strategy().traits().mixed_methods,
                              .codec = office.options.settings.wire.codec,
                              .down_codec = office.options.settings.wire.down_codec,
                              .no_relays = course->NoRelays()});
}

void AggregatorNode::Impl::On(const ClientId& from, const Hello& hello) {
  if (const std::optional<Refusal> refusal = MayJoin(from, hello)) {
    office.env.log.Warn("client refused", {{"client", from}, {"why", refusal->reason}});
    if (office.members.Present(from)) Lose(from, refusal->reason);
    office.Send(from, *refusal);
    return;
  }
  if (course->ended()) {
    office.Send(from, course->Ending());
    return;
  }
  const bool again = office.members.Present(from);
  if (again) {
    course->uploads().Pause(from);
    course->downloads().Gone(from);
  }
  office.members.Join(from, hello.capabilities, office.env.clock.Now());
  const ServerSettings& server = office.options.settings.server;
  office.env.log.Info("client joined", {{"client", from},
                                        {"device", hello.capabilities.device},
                                        {"rank_max", hello.capabilities.rank_max},
                                        {"examples", hello.capabilities.num_examples},
                                        {"again", again}});
  office.Send(from, Welcome{.run = office.run,
                            .version = office.version,
                            .num_server_rounds = static_cast<uint32_t>(
                                office.options.settings.run.num_server_rounds),
                            .heartbeat_ms = static_cast<uint32_t>(server.heartbeat_s * 1000),
                            .gone_after_ms = static_cast<uint32_t>(server.gone_after_s * 1000)});
  course->OnJoined(from, again);
}

void AggregatorNode::Impl::On(const ClientId& from, const Heartbeat& heartbeat) {
  Member* member = office.members.Find(from);
  member->phase = heartbeat.phase;
  member->busy_with = heartbeat.round;
  if (course->ended()) {
    office.Send(from, course->Ending());  // the first time it was lost
    return;
  }
  // The echo tells the client that its aggregator is alive.
  office.Send(from, heartbeat);
  if (heartbeat.phase != "download") course->downloads().OnArrived(from);
  course->rounds().OnHeartbeat(from, heartbeat);
  course->evaluations().OnHeartbeat(from, heartbeat);
}

void AggregatorNode::Impl::On(const ClientId& from, const Goodbye& goodbye) {
  Lose(from, Str("said goodbye: ", goodbye.reason));
}

void AggregatorNode::Impl::On(const ClientId& from, const UpdateOffer& offer) {
  if (!course->ended()) course->rounds().OnUpdateOffer(from, offer);
}

void AggregatorNode::Impl::On(const ClientId& from, const RoundFailed& failed) {
  if (!course->ended()) course->rounds().OnRoundFailed(from, failed);
}

void AggregatorNode::Impl::On(const ClientId& from, const EvalReply& reply) {
  if (course->ended()) return;
  const Status status = course->evaluations().OnReport(from, reply.report);
  if (!status.ok()) office.env.log.Warn("evaluation not used", {{"why", status}});
}

void AggregatorNode::Impl::On(const ClientId& from, const ChunkRequest& request) {
  const Status status = course->downloads().OnRequest(from, request);
  if (status.code() == Code::kNotFound) {
    office.env.log.Debug("request ignored", {{"why", status}});
  } else if (!status.ok()) {
    CutOff(from, status);
  }
}

void AggregatorNode::Impl::On(const ClientId& from, const Chunk& chunk, const Blob& bytes) {
  course->uploads().OnChunk(from, chunk, bytes);
}

void AggregatorNode::Impl::Lose(const ClientId& client, const std::string& why) {
  if (!office.members.Present(client)) return;
  office.members.Leave(client);
  office.env.log.Info("client gone", {{"client", client}, {"why", why}});
  course->OnGone(client, why);
}

void AggregatorNode::Impl::CutOff(const ClientId& peer, const Status& why) {
  office.env.log.Warn("peer cut off", {{"peer", peer}, {"why", why}});
  office.env.transport.Cut(peer, why);
  Lose(peer, Str("cut off: ", why.message()));
}

}  // namespace weft
