#include "common/net/connection_watch.h"

#include <algorithm>
#include <cstddef>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/socket.h>

namespace weft {
namespace {

// What framing, encryption and pings add is forgiven whenever a message has come through.
constexpr uint64_t kFramingMax = 1 << 20;

// Bytes the kernel has received for the connection; 0 where it does not count them (before
// Linux 4.1).
uint64_t ReceivedBytes(int fd) {
  tcp_info info{};
  socklen_t size = sizeof(info);
  if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) != 0) return 0;
  constexpr size_t kEnd =
      offsetof(tcp_info, tcpi_bytes_received) + sizeof(info.tcpi_bytes_received);
  return size >= kEnd ? info.tcpi_bytes_received : 0;
}

}  // namespace

std::string RemoteOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  if (fd < 0 || getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return {};
  return {reinterpret_cast<const char*>(&address), size};
}

void HangUp(int fd, const std::string& remote) {
  if (!remote.empty() && RemoteOf(fd) == remote) shutdown(fd, SHUT_RDWR);
}

void ConnectionWatch::Accepted(int fd) { connections_[fd] = {.remote = RemoteOf(fd)}; }

void ConnectionWatch::Closed(int fd) { connections_.erase(fd); }

void ConnectionWatch::Took(int fd, uint64_t bytes) {
  const auto it = connections_.find(fd);
  if (it == connections_.end()) return;
  it->second.taken += bytes;
  it->second.heard = true;
}

void ConnectionWatch::LookAt(int fd, Connection& connection, Nanos now, Ended& ended) const {
  const uint64_t received = ReceivedBytes(fd);
  const uint64_t untaken = received > connection.taken ? received - connection.taken : 0;
  if (received != connection.received) {
    connection.received = received;
    connection.grew = now;
  }
  if (untaken > bounds_.untaken_max) {
    HangUp(fd, connection.remote);
    ++ended.flooders;
  } else if (received > 0 && now - connection.grew > bounds_.silence_max) {
    HangUp(fd, connection.remote);
    connection.grew = now;  // if it stays it is told again, not at every look
    ++ended.silent;
  } else if (connection.heard && untaken < kFramingMax) {
    connection.taken = received;
  }
  connection.heard = false;
}

ConnectionWatch::Ended ConnectionWatch::Look(Nanos now, size_t at_most) {
  Ended ended;
  auto it = connections_.lower_bound(next_);
  for (size_t i = 0; i < std::min(at_most, connections_.size()); ++i) {
    if (it == connections_.end()) it = connections_.begin();
    LookAt(it->first, it->second, now, ended);
    ++it;
  }
  next_ = it == connections_.end() ? 0 : it->first;
  return ended;
}

}  // namespace weft
