#pragma once
// ZmqClient: a client's Transport. One DEALER over tcp with CURVE to the one aggregator whose key
// it was given. It reconnects by itself with backoff and jitter; each loss and each refusal is
// reported by OnPeerGone. Lives on one EventLoop.

#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/net/event_loop.h"
#include "common/net/keys.h"
#include "common/runtime/transport.h"

namespace weft {

class ZmqClient : public Transport {
 public:
  struct Options {
    std::string endpoint;  // "tcp://aggregator.example:7711"
    KeyPair keys;
    std::string server_key;  // Z85
    int io_threads = 1;
    Nanos reconnect_min = Seconds(0.1);
    Nanos reconnect_max = Seconds(30);
    Nanos linger = Seconds(2);
  };

  /// Starts connecting; that the aggregator is not there yet is no error. kInvalidArgument: not
  /// tcp, or a malformed key.
  [[nodiscard]] static Result<std::unique_ptr<ZmqClient>> Connect(EventLoop& loop, Options options);
  ~ZmqClient() override;

  void SetReceiver(Receiver* receiver) override;
  /// kUnavailable while there is no link.
  Status Send(const ClientId& to, Frames frames) override;
  /// Drops the link for good: nothing is sent or delivered any more.
  void Cut(const ClientId& peer, const Status& why) override;

  [[nodiscard]] bool connected() const;

 private:
  class Impl;
  explicit ZmqClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
