#pragma once
// TcpForwarder: a tcp link in a test's hands. It listens on a port of 127.0.0.1 that the system
// chose and passes bytes on to a target, which may change; it counts them, stops passing after a
// given number (the connections stay open, as with a peer that freezes or a firewall that drops),
// or breaks all connections. A thread of its own; all methods may be called from any thread.

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weft::testing {

class TcpForwarder {
 public:
  TcpForwarder() : listener_(Listen()), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    thread_ = std::thread([this] { Run(); });
  }
  ~TcpForwarder() {
    {
      const std::scoped_lock guard(mutex_);
      stopping_ = true;
    }
    Wake();
    thread_.join();
    for (Link& link : links_) Break(link);
    ::close(listener_);
    ::close(wake_);
  }
  TcpForwarder(const TcpForwarder&) = delete;
  TcpForwarder& operator=(const TcpForwarder&) = delete;

  /// Where clients connect, "tcp://127.0.0.1:PORT".
  [[nodiscard]] std::string endpoint() const {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
    return "tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  }

  /// Where new connections lead. Without a target, or where nobody listens, they are closed.
  void SetTarget(const std::string& endpoint) {
    const std::scoped_lock guard(mutex_);
    target_ = static_cast<uint16_t>(std::atoi(endpoint.substr(endpoint.rfind(':') + 1).c_str()));
  }

  /// When `bytes` have gone from clients to the target, counted from the start, no more of them do.
  void StallAfter(uint64_t bytes) { Arm(bytes, false); }
  /// When `bytes` have gone up, all connections break, once; later ones pass.
  void CutAfter(uint64_t bytes) { Arm(bytes, true); }
  /// Ends a stall: everything held back goes on.
  void Resume() {
    {
      const std::scoped_lock guard(mutex_);
      limit_.reset();
    }
    Wake();
  }
  /// Ends a stall by breaking all connections; later ones pass.
  void Cut() { CutAfter(bytes_up_); }

  /// True when the stall or cut has come, false if it has not within the limit.
  [[nodiscard]] bool WaitUntilReached(double limit_s = 60) {
    std::unique_lock guard(mutex_);
    return reached_changed_.wait_for(guard, std::chrono::duration<double>(limit_s),
                                     [this] { return reached_; });
  }

  [[nodiscard]] uint64_t bytes_up() const { return bytes_up_; }
  [[nodiscard]] uint64_t connections() const { return connections_; }

 private:
  static constexpr size_t kPieceBytes = 64 * 1024;

  struct Link {
    int client = -1;
    int target = -1;
    std::string up, down;  // read and not yet written
    bool over = false;     // one end has closed: what was read is passed on, then the other closes
  };

  static sockaddr_in Loopback(uint16_t port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
  }

  static int Listen() {
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(0);
    ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
    ::listen(fd, 64);
    return fd;
  }

  void Arm(uint64_t bytes, bool cut) {
    {
      const std::scoped_lock guard(mutex_);
      limit_ = bytes;
      cut_ = cut;
      reached_ = false;
    }
    Wake();
  }

  void Wake() const {
    const uint64_t one = 1;
    (void)!::write(wake_, &one, sizeof(one));
  }

  // With a reset, as a cable that is pulled: nothing that is still on its way arrives.
  static void Break(Link& link) {
    const linger now{.l_onoff = 1, .l_linger = 0};
    for (int* fd : {&link.client, &link.target}) {
      if (*fd < 0) continue;
      ::setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
      ::close(std::exchange(*fd, -1));
    }
  }

  static void Close(Link& link) {
    for (int* fd : {&link.client, &link.target}) {
      if (*fd >= 0) ::close(std::exchange(*fd, -1));
    }
  }

  // Bytes that may still go up.
  [[nodiscard]] uint64_t Allowance() const {
    if (!limit_) return kPieceBytes;
    return *limit_ > bytes_up_ ? *limit_ - bytes_up_ : 0;
  }

  void Run() {
    std::unique_lock guard(mutex_);
    while (!stopping_) {
      std::vector<pollfd> polled{{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
      for (const Link& link : links_) {
        const short up = link.up.empty() && !link.over && Allowance() > 0 ? POLLIN : 0;
        const short down = link.down.empty() && !link.over ? POLLIN : 0;
        // The end of a client is also seen while nothing is read from it.
        const short end = link.over ? short{0} : short{POLLRDHUP};
        polled.push_back({link.client, short(up | end | (link.down.empty() ? 0 : POLLOUT)), 0});
        polled.push_back({link.target, short(down | (link.up.empty() ? 0 : POLLOUT)), 0});
      }
      guard.unlock();
      ::poll(polled.data(), polled.size(), -1);
      guard.lock();
      uint64_t ignored = 0;
      (void)!::read(wake_, &ignored, sizeof(ignored));
      size_t at = 2;
      for (Link& link : links_) {
        Serve(link, polled[at].revents, polled[at + 1].revents);
        at += 2;
      }
      if (polled[0].revents != 0) AcceptOne();
      CheckLimit();
      links_.remove_if([](const Link& link) { return link.client < 0; });
    }
  }

  void AcceptOne() {
    Link link;
    link.client = ::accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (link.client < 0) return;
    ++connections_;
    link.target = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_in address = Loopback(target_);
    if (target_ == 0 ||
        ::connect(link.target, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
      return Close(link);
    }
    links_.push_back(std::move(link));
  }

  void Serve(Link& link, short client, short target) {
    if (((client | target) & POLLERR) != 0) return Break(link);
    if (!link.over && (client & (POLLRDHUP | POLLHUP)) != 0 && Allowance() == 0) {
      return Break(link);  // a client that ends while it is held back
    }
    if ((client & (POLLIN | POLLHUP | POLLRDHUP)) != 0 && link.up.empty() && !link.over) {
      Read(link, link.client, link.up, std::min<uint64_t>(Allowance(), kPieceBytes));
    }
    if ((target & (POLLIN | POLLHUP)) != 0 && link.down.empty() && !link.over) {
      Read(link, link.target, link.down, kPieceBytes);
    }
    if (!link.up.empty()) bytes_up_ += Write(link, link.target, link.up);
    if (!link.down.empty()) Write(link, link.client, link.down);
    if (link.over && link.up.empty() && link.down.empty()) Close(link);
  }

  static void Read(Link& link, int fd, std::string& into, uint64_t most) {
    if (most == 0) return;
    into.resize(most);
    const ssize_t count = ::recv(fd, into.data(), most, MSG_DONTWAIT);
    into.resize(count > 0 ? static_cast<size_t>(count) : 0);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) link.over = true;
  }

  static uint64_t Write(Link& link, int fd, std::string& from) {
    const ssize_t count = ::send(fd, from.data(), from.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count > 0) from.erase(0, static_cast<size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) {
      from.clear();
      link.over = true;
    }
    return count > 0 ? static_cast<uint64_t>(count) : 0;
  }

  void CheckLimit() {
    if (!limit_ || reached_ || bytes_up_ < *limit_) return;
    reached_ = true;
    if (cut_) {
      for (Link& link : links_) Break(link);
      limit_.reset();
    }
    reached_changed_.notify_all();
  }

  const int listener_;
  const int wake_;
  std::atomic<uint64_t> bytes_up_ = 0;
  std::atomic<uint64_t> connections_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable reached_changed_;
  std::list<Link> links_;
  uint16_t target_ = 0;
  std::optional<uint64_t> limit_;
  bool cut_ = false;
  bool reached_ = false;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace weft::testing
