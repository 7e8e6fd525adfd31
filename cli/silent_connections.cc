#include "cli/silent_connections.h"

#include <array>
#include <charconv>
#include <cstdint>
#include <string>
#include <vector>

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/base/str.h"
#include "common/net/descriptors.h"

namespace weft::cli {
namespace {

// The signature that begins a ZMTP greeting; the version, mechanism and padding never come.
constexpr std::array<uint8_t, 10> kHalfGreeting = {0xFF, 0, 0, 0, 0, 0, 0, 0, 1, 0x7F};
constexpr int kLookEvery_ms = 100;

class SilentConnections {
 public:
  SilentConnections(size_t count, sockaddr_in server) : server_(server), fds_(count, -1) {}
  ~SilentConnections() { CloseAll(); }
  SilentConnections(const SilentConnections&) = delete;
  SilentConnections& operator=(const SilentConnections&) = delete;

  void OpenMissing() {
    for (size_t i = 0; i < fds_.size(); ++i) {
      if (fds_[i] < 0) fds_[i] = Open(i % 2 == 1);
    }
  }

  void CloseEnded() {
    std::vector<pollfd> polled;
    for (const int fd : fds_) polled.push_back({fd, POLLRDHUP, 0});
    ::poll(polled.data(), polled.size(), 0);
    for (size_t i = 0; i < fds_.size(); ++i) {
      if (fds_[i] < 0 || (polled[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0) continue;
      ::close(fds_[i]);
      fds_[i] = -1;
    }
  }

  void CloseAll() {
    for (int& fd : fds_) {
      if (fd >= 0) ::close(fd);
      fd = -1;
    }
  }

  [[nodiscard]] uint64_t opened() const { return opened_; }

 private:
  int Open(bool half_greeting) {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) return -1;
    // Over loopback this waits for the server's backlog at most.
    if (::connect(fd, reinterpret_cast<const sockaddr*>(&server_), sizeof(server_)) != 0) {
      ::close(fd);
      return -1;
    }
    ++opened_;
    if (half_greeting) {
      (void)::send(fd, kHalfGreeting.data(), kHalfGreeting.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return fd;
  }

  const sockaddr_in server_;
  std::vector<int> fds_;  // -1: ended by the server
  uint64_t opened_ = 0;
};

Result<sockaddr_in> AddressOf(const std::string& endpoint) {
  uint16_t port = 0;
  const char* const end = endpoint.data() + endpoint.size();
  const auto [stop, error] = std::from_chars(endpoint.data() + endpoint.rfind(':') + 1, end, port);
  if (error != std::errc() || stop != end) {
    return InvalidArgument(Str("[bench] silent connections: got \"", endpoint,
                               "\", wanted the aggregator's tcp://HOST:PORT"));
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

}  // namespace

Status RunSilentConnections(size_t count, const Pipes& pipes) {
  const std::string endpoint = pipes.ReadLine();
  if (endpoint.empty()) return Cancelled("[bench] there is no aggregator to connect to");
  WEFT_TRY_ASSIGN(const sockaddr_in server, AddressOf(endpoint));
  WEFT_TRY(NeedDescriptors(Str(count, " silent connections"), count + 64));
  SilentConnections silent(count, server);
  bool open = false;
  while (true) {
    pollfd commands{pipes.commands, POLLIN, 0};
    if (::poll(&commands, 1, open ? kLookEvery_ms : -1) > 0) {
      const std::string line = pipes.ReadLine();
      if (line.empty()) return OkStatus();
      open = line == "open";
      if (!open) {
        silent.CloseAll();
        pipes.Write(Str(silent.opened()) + "\n");
      }
    }
    if (!open) continue;
    silent.CloseEnded();
    silent.OpenMissing();
  }
}

}  // namespace weft::cli
