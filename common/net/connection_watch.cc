#include "common/net/connection_watch.h"

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

size_t ConnectionWatch::HangUpFlooders() {
  size_t ended = 0;
  for (auto& [fd, connection] : connections_) {
    const uint64_t received = ReceivedBytes(fd);
    const uint64_t untaken = received > connection.taken ? received - connection.taken : 0;
    if (untaken > untaken_max_) {
      HangUp(fd, connection.remote);
      ++ended;
    } else if (connection.heard && untaken < kFramingMax) {
      connection.taken = received;
    }
    connection.heard = false;
  }
  return ended;
}

}  // namespace weft
