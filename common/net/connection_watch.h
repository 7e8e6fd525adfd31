#pragma once
// ConnectionWatch: how much each accepted connection has sent and how much of it became messages.
// libzmq hides the frames of an unfinished message and does not count them against its queue, so a
// peer that never finishes one would fill the memory; the kernel's byte counter shows it. Internal
// to common/net; used by ZmqServer in its loop.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace weft {

/// Address and port of a connection's other end, as bytes; empty if the descriptor is no
/// connection. Tells whether a descriptor still is the connection it was.
[[nodiscard]] std::string RemoteOf(int fd);

/// Ends a connection whose descriptor libzmq owns: it sees the end of the stream. Nothing happens
/// if the descriptor belongs to another connection by now.
void HangUp(int fd, const std::string& remote);

class ConnectionWatch {
 public:
  /// `untaken_max`: bytes received and not yet part of a message, from which on a peer is cut.
  explicit ConnectionWatch(uint64_t untaken_max) : untaken_max_(untaken_max) {}

  void Accepted(int fd);
  void Closed(int fd);
  /// A whole message of that many bytes came from the connection.
  void Took(int fd, uint64_t bytes);
  /// Ends the connections that have sent too much without finishing a message; returns how many.
  size_t HangUpFlooders();

 private:
  struct Connection {
    std::string remote;
    uint64_t taken = 0;
    bool heard = false;  // a message came since the last look
  };
  uint64_t untaken_max_;
  std::map<int, Connection> connections_;
};

}  // namespace weft
