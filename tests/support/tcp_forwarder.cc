#include "tests/support/tcp_forwarder.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <limits>
#include <utility>

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

namespace weft::testing {
namespace {

constexpr size_t kPieceBytes = 64 * 1024;
// What a way holds at most: with a latency all that is on its way, else one piece.
constexpr size_t kHeldBytesMax = 4 * 1024 * 1024;

sockaddr_in Loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

int Listen() {
  const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const sockaddr_in address = Loopback(0);
  ::bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  ::listen(fd, 64);
  return fd;
}

Way Opposite(Way way) { return way == Way::kUp ? Way::kDown : Way::kUp; }

}  // namespace

TcpForwarder::TcpForwarder()
    : listener_(Listen()), wake_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
  thread_ = std::thread([this] { Run(); });
}

TcpForwarder::~TcpForwarder() {
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

std::string TcpForwarder::endpoint() const {
  sockaddr_in address{};
  socklen_t size = sizeof(address);
  ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &size);
  return "tcp://127.0.0.1:" + std::to_string(ntohs(address.sin_port));
}

void TcpForwarder::SetTarget(const std::string& endpoint) {
  const std::scoped_lock guard(mutex_);
  target_ = static_cast<uint16_t>(std::atoi(endpoint.substr(endpoint.rfind(':') + 1).c_str()));
}

void TcpForwarder::Delay(double latency_s) {
  const std::scoped_lock guard(mutex_);
  latency_ = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(latency_s));
}

void TcpForwarder::Throttle(uint64_t bytes_per_s) {
  const std::scoped_lock guard(mutex_);
  bytes_per_s_ = bytes_per_s;
  refilled_ = Clock::now();
}

void TcpForwarder::Resume() {
  {
    const std::scoped_lock guard(mutex_);
    armed_.reset();
  }
  Wake();
}

void TcpForwarder::Arm(const Armed& armed) {
  {
    const std::scoped_lock guard(mutex_);
    armed_ = armed;
    reached_ = false;
  }
  Wake();
}

bool TcpForwarder::WaitUntilReached(double limit_s) {
  std::unique_lock guard(mutex_);
  return reached_changed_.wait_for(guard, std::chrono::duration<double>(limit_s),
                                   [this] { return reached_; });
}

void TcpForwarder::Wake() const {
  const uint64_t one = 1;
  (void)!::write(wake_, &one, sizeof(one));
}

// With a reset, as a cable that is pulled: nothing that is still on its way arrives.
void TcpForwarder::Break(Link& link) {
  const linger now{.l_onoff = 1, .l_linger = 0};
  for (int* fd : {&link.client, &link.target}) {
    if (*fd >= 0) ::setsockopt(*fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
  }
  Close(link);
}

void TcpForwarder::Close(Link& link) {
  for (int* fd : {&link.client, &link.target}) {
    if (*fd >= 0) ::close(std::exchange(*fd, -1));
  }
}

void TcpForwarder::HalfClose(Link& link, Way way) {
  Flow& flow = FlowOf(link, way);
  flow.lost = true;
  flow.pieces.clear();
  flow.held = 0;
  if (ReaderOf(link, way) >= 0) ::shutdown(ReaderOf(link, way), SHUT_WR);
}

bool TcpForwarder::Stalled(Way way) const {
  return armed_ && armed_->fault == Fault::kStall && armed_->way == way &&
         Passed(way) >= armed_->bytes;
}

uint64_t TcpForwarder::Passable(const Flow& flow, Way way) const {
  if (flow.pieces.empty() || flow.pieces.front().due > Clock::now()) return 0;
  uint64_t most = std::numeric_limits<uint64_t>::max();
  if (bytes_per_s_) most = static_cast<uint64_t>(tokens_[static_cast<size_t>(way)]);
  if (armed_ && armed_->way == way) {
    most = std::min(most, armed_->bytes - std::min(armed_->bytes, Passed(way)));
  }
  return most;
}

std::vector<pollfd> TcpForwarder::Watched() {
  std::vector<pollfd> polled{{listener_, POLLIN, 0}, {wake_, POLLIN, 0}};
  const size_t held_max = latency_.count() > 0 ? kHeldBytesMax : 1;
  for (Link& link : links_) {
    for (const Way sends : {Way::kUp, Way::kDown}) {
      const Flow& from = FlowOf(link, sends);
      const Way takes = Opposite(sends);
      short events = 0;
      if (!link.over && from.held < held_max) events |= POLLIN;
      // The end of a sender is also seen while it is held back.
      if (!link.over && (from.held < held_max || Stalled(sends))) events |= POLLRDHUP;
      if (Passable(FlowOf(link, takes), takes) > 0) events |= POLLOUT;
      // A descriptor that nothing is asked of would still report its end, again and again.
      polled.push_back({events == 0 ? -1 : SenderOf(link, sends), events, 0});
    }
  }
  return polled;
}

// What is late or waits for the throttle has no descriptor that would say when.
int TcpForwarder::Patience_ms() const {
  const bool slow = latency_.count() > 0 || bytes_per_s_.has_value();
  const bool waits = std::any_of(links_.begin(), links_.end(), [](const Link& link) {
    return !link.up.pieces.empty() || !link.down.pieces.empty();
  });
  return slow && waits ? 2 : -1;
}

void TcpForwarder::Refill() {
  if (!bytes_per_s_) return;
  const double rate = static_cast<double>(*bytes_per_s_);
  const Clock::time_point now = Clock::now();
  const double elapsed_s =
      std::chrono::duration<double>(now - std::exchange(refilled_, now)).count();
  for (double& tokens : tokens_) tokens = std::min(tokens + rate * elapsed_s, rate / 10);
}

void TcpForwarder::Run() {
  std::unique_lock guard(mutex_);
  while (!stopping_) {
    std::vector<pollfd> polled = Watched();
    const int patience_ms = Patience_ms();
    guard.unlock();
    ::poll(polled.data(), polled.size(), patience_ms);
    guard.lock();
    uint64_t ignored = 0;
    (void)!::read(wake_, &ignored, sizeof(ignored));
    Refill();
    size_t at = 2;
    for (Link& link : links_) {
      Serve(link, polled[at].revents, polled[at + 1].revents);
      at += 2;
    }
    if (polled[0].revents != 0) AcceptOne();
    CheckArmed();
    links_.remove_if([](const Link& link) { return link.client < 0 && link.target < 0; });
  }
}

void TcpForwarder::AcceptOne() {
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

void TcpForwarder::Serve(Link& link, short client, short target) {
  for (const auto& [way, revents] : {std::pair(Way::kUp, client), std::pair(Way::kDown, target)}) {
    if ((revents & POLLERR) != 0) {
      EndOfSender(link, way);
      if (SenderOf(link, way) >= 0) return Break(link);
    }
    if ((revents & (POLLRDHUP | POLLHUP)) != 0 && !link.over && Stalled(way)) {
      return Break(link);  // it ends while it is held back
    }
    if ((revents & (POLLIN | POLLHUP | POLLRDHUP)) != 0 && !link.over) Read(link, way);
  }
  for (const Way way : {Way::kUp, Way::kDown}) Write(link, way);
  if (link.over && link.up.pieces.empty() && link.down.pieces.empty()) Close(link);
}

// The end of one that was told that the other is over is not passed on.
void TcpForwarder::EndOfSender(Link& link, Way way) {
  if (FlowOf(link, Opposite(way)).lost) {
    if (SenderOf(link, way) >= 0) ::close(std::exchange(SenderOf(link, way), -1));
  } else {
    link.over = true;
  }
}

void TcpForwarder::Read(Link& link, Way way) {
  Flow& flow = FlowOf(link, way);
  std::string bytes(kPieceBytes, '\0');
  const ssize_t count = ::recv(SenderOf(link, way), bytes.data(), bytes.size(), MSG_DONTWAIT);
  if (count == 0 || (count < 0 && errno != EAGAIN && errno != EINTR)) {
    return EndOfSender(link, way);
  }
  if (count < 0 || flow.lost) return;
  bytes.resize(static_cast<size_t>(count));
  flow.held += bytes.size();
  flow.pieces.push_back({Clock::now() + latency_, std::move(bytes)});
}

void TcpForwarder::Write(Link& link, Way way) {
  Flow& flow = FlowOf(link, way);
  while (const uint64_t most = Passable(flow, way)) {
    std::string& bytes = flow.pieces.front().bytes;
    const ssize_t count =
        ::send(ReaderOf(link, way), bytes.data(), std::min<uint64_t>(bytes.size(), most),
               MSG_DONTWAIT | MSG_NOSIGNAL);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count < 0) {
      flow.pieces.clear();
      flow.held = 0;
      link.over = true;
      return;
    }
    const auto sent = static_cast<size_t>(count);
    passed_[static_cast<size_t>(way)] += sent;
    if (bytes_per_s_) tokens_[static_cast<size_t>(way)] -= static_cast<double>(sent);
    flow.held -= sent;
    bytes.erase(0, sent);
    if (bytes.empty()) flow.pieces.pop_front();
  }
}

void TcpForwarder::CheckArmed() {
  if (!armed_ || Passed(armed_->way) < armed_->bytes) return;
  if (armed_->fault == Fault::kStall && reached_) return;
  for (Link& link : links_) {
    if (armed_->fault == Fault::kCut) Break(link);
    if (armed_->fault == Fault::kHalfClose) HalfClose(link, armed_->way);
  }
  if (armed_->again_after > 0) {
    armed_->bytes = Passed(armed_->way) + armed_->again_after;
  } else if (armed_->fault != Fault::kStall) {
    armed_.reset();
  }
  reached_ = true;
  reached_changed_.notify_all();
}

}  // namespace weft::testing
