#pragma once
// Session: the client's link: hello until welcomed, heartbeats, silence noticed, reconnects with
// exponential backoff and jitter. Owned by the ClientNode.

#include <functional>
#include <string>

#include "client/context.h"

namespace weft {

class Session {
 public:
  struct Hooks {
    std::function<void()> joined;
    std::function<void()> lost;
    std::function<void(const Status& why)> refused;  // for good
  };
  Session(ClientContext& context, Hooks hooks);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  void Connect();
  void OnWelcome(const Welcome& welcome);
  void OnRefusal(const Refusal& refusal);
  /// Anything came from the aggregator.
  void Heard() { heard_ = context_.env.clock.Now(); }
  void OnLinkGone(const Status& why);
  /// No more timers, no more messages.
  void Close();

 private:
  enum class State { kConnecting, kJoined, kClosed };
  void SayHello();
  void TryAgainLater(const std::string& why);
  void Beat();
  void SetTimer(Nanos after, void (Session::*what)());
  [[nodiscard]] Nanos Backoff();

  ClientContext& context_;
  Hooks hooks_;
  State state_ = State::kConnecting;
  TimerId timer_;
  uint32_t failures_ = 0;
  Nanos heard_{0};
  std::string last_reason_;
};

}  // namespace weft
