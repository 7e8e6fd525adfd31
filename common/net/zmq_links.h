#pragma once
// ZmqLinks: thousands of client links in one process, for load tests. What a ZmqClient does with a
// context, two threads and three sockets of its own, a link does with one DEALER of a context that
// all share; it has no monitor, so a lost link shows as silence. ZmqEcho: a ROUTER with the same
// options that does nothing but answer, to tell libzmq's share of memory and time from ours. Both
// live on one EventLoop; not thread-safe.

#include <memory>
#include <string>

#include "common/base/result.h"
#include "common/net/event_loop.h"
#include "common/net/keys.h"
#include "common/runtime/transport.h"

namespace weft {

class ZmqLink : public Transport {
 public:
  /// Messages that came over it so far.
  [[nodiscard]] virtual uint64_t heard() const = 0;
};

class ZmqLinks {
 public:
  struct Options {
    std::string endpoint;
    std::string server_key;  // Z85
    size_t links_max = 0;
  };

  /// kInvalidArgument: not tcp, or a malformed key; kResourceExhausted: too few descriptors for so
  /// many links.
  [[nodiscard]] static Result<std::unique_ptr<ZmqLinks>> Open(EventLoop& loop, Options options);
  ~ZmqLinks();

  /// Starts connecting one more, at most links_max in all. Owned here, so that one that its node
  /// has cut may still be served.
  [[nodiscard]] Result<ZmqLink*> Add(const KeyPair& keys);

 private:
  class Impl;
  explicit ZmqLinks(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

class ZmqEcho {
 public:
  /// Binds a free port of 127.0.0.1. Any key is let in: there is nobody to ask.
  [[nodiscard]] static Result<std::unique_ptr<ZmqEcho>> Bind(EventLoop& loop, const KeyPair& keys);
  ~ZmqEcho();
  [[nodiscard]] const std::string& endpoint() const;

 private:
  class Impl;
  explicit ZmqEcho(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
