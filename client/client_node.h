#pragma once
// ClientNode: one site's part in a run, as a single-threaded state machine. Training and evaluation
// run in the Executor, so heartbeats and chunks are answered all the while. A trained update is on
// disk before it is offered and stays there until its verdict.
//
//   hello → welcome → { round-offer → pull bundle → train → keep → offer → serve chunks → verdict }
//   …                 { eval-request → pull bundle → evaluate → reply } … → run-ended
//
// Owned by whoever built the Env; all calls come from its loop.

#include <memory>

#include "client/options.h"
#include "common/runtime/env.h"

namespace weft {

class ClientNode : public Node {
 public:
  ClientNode(Env env, ClientOptions options);
  ~ClientNode() override;
  ClientNode(const ClientNode&) = delete;
  ClientNode& operator=(const ClientNode&) = delete;

  [[nodiscard]] Status Start() override;
  void Stop(const Status& why) override;
  [[nodiscard]] bool Finished() const override;
  /// Ok when the run completed; kPermissionDenied and its like when refused; kCancelled when
  /// stopped.
  [[nodiscard]] Status Outcome() const override;
  /// The outcome is a refusal: trying again as it is cannot help.
  [[nodiscard]] bool Refused() const;

  void OnFrames(const ClientId& from, Frames frames) override;
  void OnPeerGone(const ClientId& peer, const Status& why) override;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
