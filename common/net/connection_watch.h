#pragma once
// ConnectionWatch: how much each accepted connection has sent, how much of it became messages, and
// when the last of it came. libzmq hides the frames of an unfinished message and does not count
// them against its queue, so a peer that never finishes one would fill the memory; the kernel's
// byte counter shows it, and which links are dead. Internal to common/net; used by ZmqServer in its
// loop.

#include <cstdint>
#include <map>
#include <string>

#include "common/runtime/clock.h"

namespace weft {

/// Address and port of a connection's other end, as bytes; empty if the descriptor is no
/// connection. Tells whether a descriptor still is the connection it was.
[[nodiscard]] std::string RemoteOf(int fd);

/// Ends a connection whose descriptor libzmq owns: it sees the end of the stream. Nothing happens
/// if the descriptor belongs to another connection by now.
void HangUp(int fd, const std::string& remote);

class ConnectionWatch {
 public:
  struct Bounds {
    uint64_t untaken_max = 0;  // bytes received and not yet part of a message
    Nanos silence_max{0};      // since the last byte; one that never sent any is libzmq's to end
  };
  struct Ended {
    size_t flooders = 0;
    size_t silent = 0;
  };
  explicit ConnectionWatch(Bounds bounds) : bounds_(bounds) {}

  void Accepted(int fd);
  void Closed(int fd);
  /// A whole message of that many bytes came from the connection.
  void Took(int fd, uint64_t bytes);
  /// Ends connections beyond their bounds; looks at no more than `at_most` of them, next time at
  /// those that follow.
  Ended Look(Nanos now, size_t at_most);
  [[nodiscard]] size_t size() const { return connections_.size(); }

 private:
  struct Connection {
    std::string remote;
    uint64_t taken = 0;
    bool heard = false;  // a message came since the last look
    uint64_t received = 0;
    Nanos grew{0};  // at the first look that saw so much
  };
  void LookAt(int fd, Connection& connection, Nanos now, Ended& ended) const;

  const Bounds bounds_;
  std::map<int, Connection> connections_;
  int next_ = 0;  // where the next look begins
};

}  // namespace weft
