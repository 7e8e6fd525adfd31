#pragma once
// ZmqServer: the aggregator's Transport. One ROUTER over tcp with CURVE; ZAP lets in the keys of
// the allow-list alone and names each peer by its entry. Lives on one EventLoop; not thread-safe.

#include <filesystem>
#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/log/log.h"
#include "common/net/event_loop.h"
#include "common/net/keys.h"
#include "common/runtime/transport.h"

namespace weft {

class ZmqServer : public Transport {
 public:
  struct Options {
    std::string endpoint;  // "tcp://0.0.0.0:7711"; port * picks a free one
    KeyPair keys;
    std::filesystem::path allow_list;  // re-read while running; a revoked peer is cut within 2 s
    int io_threads = 1;
    Nanos linger = Seconds(2);              // how long Close() lets queued messages leave
    uint64_t untaken_bytes_max = 32 << 20;  // of one peer, received without finishing a message
    Nanos silence_max = Seconds(30);        // of a link, on which a client pings every 10 s
    const log::Logger* log = nullptr;       // who is refused, an allow-list that cannot be read
  };

  /// Binds. kInvalidArgument: not tcp; kAlreadyExists: the port is in use; kFailedPrecondition:
  /// libzmq too old.
  [[nodiscard]] static Result<std::unique_ptr<ZmqServer>> Bind(EventLoop& loop, Options options);
  ~ZmqServer() override;

  void SetReceiver(Receiver* receiver) override;
  Status Send(const ClientId& to, Frames frames) override;
  /// What was sent to the peer before is still delivered, for up to a second.
  void Cut(const ClientId& peer, const Status& why) override;

  /// The endpoint with the port it got, as clients write it.
  [[nodiscard]] const std::string& endpoint() const;
  [[nodiscard]] size_t peers() const;

 private:
  class Impl;
  explicit ZmqServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
