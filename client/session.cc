#include "client/session.h"

#include <algorithm>
#include <utility>

#include "common/base/str.h"

namespace weft {
namespace {

// A hello that is on its way is answered within this; a second one would only make work.
constexpr Nanos kHelloPatience = std::chrono::seconds(5);
// What a Welcome may ask for, so that a wrong one neither floods the link nor lets it die.
constexpr uint32_t kHeartbeatMsMin = 50;
constexpr uint32_t kGoneAfterMsMax = 3600 * 1000;
constexpr uint32_t kDoublingsMax = 16;

}  // namespace

Session::Session(ClientContext& context, Hooks hooks)
    : context_(context), hooks_(std::move(hooks)) {}

Session::~Session() { context_.env.clock.Cancel(timer_); }

void Session::SetTimer(Nanos after, void (Session::*what)()) {
  context_.env.clock.Cancel(timer_);
  timer_ =
      context_.env.clock.At(context_.env.clock.Now() + after, [this, what] { (this->*what)(); });
}

Nanos Session::Backoff() {
  const Nanos full =
      std::min(context_.options.backoff_max,
               context_.options.backoff_first * (1U << std::min(failures_, kDoublingsMax)));
  ++failures_;
  // Half of it is drawn, so that clients that lost one aggregator do not all come back at once.
  return Seconds(ToSeconds(full) * (0.5 + 0.5 * context_.env.entropy.Uniform()));
}

void Session::Connect() {
  state_ = State::kConnecting;
  SayHello();
}

void Session::SayHello() {
  const bool sent = context_.Send(Hello{.base_hash = context_.options.base.hash,
                                        .sites = context_.options.base.sites,
                                        .capabilities = context_.options.offer});
  const Nanos wait = Backoff();
  SetTimer(sent ? std::max(wait, kHelloPatience) : wait, &Session::SayHello);
}

void Session::TryAgainLater(const std::string& why) {
  state_ = State::kConnecting;
  const Nanos wait = Backoff();
  // The same trouble is one line in the log, however often it is tried.
  if (std::exchange(last_reason_, why) != why) {
    context_.env.log.Warn("not joined; trying again", {{"why", why}, {"in_s", ToSeconds(wait)}});
  }
  SetTimer(wait, &Session::SayHello);
}

void Session::OnWelcome(const Welcome& welcome) {
  if (state_ == State::kClosed) return;
  context_.welcome = welcome;
  context_.welcome.heartbeat_ms = std::max(welcome.heartbeat_ms, kHeartbeatMsMin);
  context_.welcome.gone_after_ms =
      std::clamp(welcome.gone_after_ms, 2 * context_.welcome.heartbeat_ms, kGoneAfterMsMax);
  context_.joined = true;
  state_ = State::kJoined;
  failures_ = 0;
  last_reason_.clear();
  Heard();
  context_.env.log.Info(
      "joined",
      {{"run", welcome.run}, {"version", welcome.version}, {"rounds", welcome.num_server_rounds}});
  SetTimer(std::chrono::milliseconds(context_.welcome.heartbeat_ms), &Session::Beat);
  hooks_.joined();
}

void Session::OnRefusal(const Refusal& refusal) {
  if (state_ == State::kClosed) return;
  const bool was_joined = std::exchange(context_.joined, false);
  if (was_joined) hooks_.lost();
  if (refusal.retry) return TryAgainLater(refusal.reason);
  hooks_.refused(
      Status(refusal.code == Code::kOk ? Code::kInternal : refusal.code, refusal.reason));
}

void Session::OnLinkGone(const Status& why) {
  if (state_ == State::kClosed) return;
  const bool was_joined = std::exchange(context_.joined, false);
  if (was_joined) hooks_.lost();
  // A key that is not (any longer) on the allow-list will not be let in later either.
  if (why.code() == Code::kPermissionDenied) return hooks_.refused(why);
  if (state_ == State::kConnecting && !was_joined) return;  // the next hello is on a timer already
  TryAgainLater(why.message());
}

void Session::Beat() {
  const Nanos silent = context_.env.clock.Now() - heard_;
  if (silent > std::chrono::milliseconds(context_.welcome.gone_after_ms)) {
    return OnLinkGone(
        Unavailable(Str("[link] nothing heard from the aggregator for ", ToSeconds(silent), " s")));
  }
  context_.Send(context_.Doing());
  SetTimer(std::chrono::milliseconds(context_.welcome.heartbeat_ms), &Session::Beat);
}

void Session::Close() {
  state_ = State::kClosed;
  context_.joined = false;
  context_.env.clock.Cancel(timer_);
}

}  // namespace weft
