#pragma once
// TestMember: one site's side of the round protocol without model or trainer, over the client's own
// transport and with the site's own key. It takes the bundle it is offered and delivers whatever a
// test made of it, right or wrong. All members of a test live on one EventLoop.

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/net/event_loop.h"
#include "common/net/zmq_client.h"
#include "common/plan/base_description.h"
#include "common/wire/messages.h"
#include "common/wire/payload.h"
#include "tests/integration/federation.h"

namespace weft::testing {

/// An update as a member says and serves it. Nothing holds the three together.
struct Delivery {
  Blob frame;    // the offer's control frame
  Blob payload;  // served in answer to any chunk request, whatever was offered
};

/// Turns the loop until it holds; false when the limit has passed.
[[nodiscard]] bool Turn(EventLoop& loop, const std::function<bool()>& holds, double limit_s = 60);

class TestMember : public Transport::Receiver {
 public:
  TestMember(EventLoop& loop, const Federation& federation, std::string site);

  /// Says hello over a new link; an older one is dropped without a word.
  void Join();
  void Send(Blob control, Blob chunk = {});
  void Deliver(Delivery delivery);

  [[nodiscard]] const std::string& site() const { return site_; }
  /// What it was asked for last, once its bundle is here; nothing when it was answered.
  [[nodiscard]] bool asked() const { return asked_; }
  [[nodiscard]] const RoundPlan& plan() const { return plan_; }
  [[nodiscard]] const Blob& bundle() const { return bundle_; }
  [[nodiscard]] const std::optional<UpdateVerdict>& verdict() const { return verdict_; }
  /// From the last frame it sent to the verdict.
  [[nodiscard]] double verdict_s() const { return verdict_s_; }
  [[nodiscard]] bool ended() const { return ended_; }

  void OnFrames(const ClientId& from, Frames frames) override;
  void OnPeerGone(const ClientId& /*peer*/, const Status& /*why*/) override {}

 private:
  void On(const RoundOffer& offer);
  void On(const Chunk& chunk, const Blob& bytes);
  void On(const ChunkRequest& request);
  [[nodiscard]] Hello MakeHello() const;

  EventLoop& loop_;
  const Federation& federation_;
  std::string site_;
  BaseDescription base_;
  std::unique_ptr<ZmqClient> link_;
  bool joined_ = false;
  bool ended_ = false;
  bool asked_ = false;
  RoundPlan plan_;
  std::optional<PayloadReceiver> coming_;
  std::optional<PayloadBuffer> buffer_;
  Blob bundle_;
  Delivery delivery_;
  std::optional<UpdateVerdict> verdict_;
  Nanos sent_{0};
  double verdict_s_ = 0;
};

}  // namespace weft::testing
