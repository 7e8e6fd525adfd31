#pragma once
// ClientContext: what the parts of a client share: the way to send and to record, and what its
// heartbeats say. Owned by the ClientNode; all calls come from its loop.

#include <memory>
#include <string>

#include "client/options.h"
#include "common/runtime/env.h"
#include "common/wire/messages.h"

namespace weft {

class ClientContext {
 public:
  ClientContext(Env env_in, ClientOptions options_in);
  ClientContext(const ClientContext&) = delete;
  ClientContext& operator=(const ClientContext&) = delete;

  Env env;
  const ClientOptions options;
  Welcome welcome;  // of the last time it joined
  bool joined = false;

  /// False if there is no link or its queue is full; who must know tries again on a timer.
  bool Send(const Message& message, const Blob& chunk = {});

  /// Appends to the client's own log (local.db): for its operator, never needed to go on.
  void Record(EventDraft event);

  /// A Done that counts as pending until it is called; it does nothing once the client has left.
  [[nodiscard]] Done Track(Done done);
  [[nodiscard]] int pending_writes() const { return pending_writes_; }

  [[nodiscard]] bool over() const { return over_; }
  void SetOver() { over_ = true; }

  /// What heartbeats say. `control` is the work whose progress they report, none: 0.
  void SetPhase(RoundId round, std::string phase, std::shared_ptr<JobControl> control);
  [[nodiscard]] Heartbeat Doing() const;

 private:
  bool over_ = false;
  int pending_writes_ = 0;
  RoundId round_;
  std::string phase_ = "wait";
  std::shared_ptr<JobControl> control_;
};

}  // namespace weft
