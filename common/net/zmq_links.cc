#include "common/net/zmq_links.h"

#include <array>
#include <cerrno>
#include <deque>
#include <utility>
#include <vector>

#include <sys/epoll.h>
#include <unistd.h>
#include <zmq.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/net/descriptors.h"
#include "common/net/zmq_socket.h"

namespace weft {
namespace {

constexpr uint64_t kDescriptorsPerLink = 2;  // the socket's mailbox and its connection
constexpr uint64_t kDescriptorsBeside = 256;
constexpr int kSocketsBeside = 16;
constexpr int kQueue = 4 * static_cast<int>(limits::kChunksInFlightMax);
constexpr int kReconnectMs = 100;
constexpr int kReconnectMaxMs = 30000;
constexpr int kBacklog = 4096;

}  // namespace

class ZmqLinks::Impl : public EventSource {
 public:
  Impl(EventLoop& loop, Options options)
      : loop_(loop),
        options_(std::move(options)),
        context_(1, static_cast<int>(options_.links_max) + kSocketsBeside),
        ready_(epoll_create1(EPOLL_CLOEXEC)) {
    WEFT_CHECK(ready_ >= 0, "epoll_create1: ", errno);
    loop_.Add(this);
  }
  ~Impl() override {
    loop_.Remove(this);
    close(ready_);
  }
  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;

  Result<ZmqLink*> Add(const KeyPair& keys);

  [[nodiscard]] int Fd() const override { return ready_; }
  [[nodiscard]] bool Pending() override { return !again_.empty(); }
  void Run(int budget) override;

 private:
  class Link;
  void Serve(Link* link);
  // Sending may take the signal that a message has come, so its link is looked at again.
  void Again(Link* link);

  EventLoop& loop_;
  const Options options_;
  zmq::Context context_;
  int ready_;  // descriptors of links with news
  std::deque<std::unique_ptr<Link>> links_;
  std::vector<Link*> again_;
};

class ZmqLinks::Impl::Link : public ZmqLink {
 public:
  Link(Impl& owner, const KeyPair& keys) : owner_(owner), dealer_(owner.context_, ZMQ_DEALER) {
    zmq::SetCommonOptions(dealer_, owner.options_.endpoint, Nanos(0));
    zmq::SetPings(dealer_);
    dealer_.Set(ZMQ_CURVE_SERVERKEY, owner.options_.server_key);
    dealer_.Set(ZMQ_CURVE_PUBLICKEY, keys.public_key);
    dealer_.Set(ZMQ_CURVE_SECRETKEY, keys.secret_key.view());
    dealer_.Set(ZMQ_IMMEDIATE, 1);
    dealer_.Set(ZMQ_RECONNECT_IVL, kReconnectMs);
    dealer_.Set(ZMQ_RECONNECT_IVL_MAX, kReconnectMaxMs);
    dealer_.Set(ZMQ_SNDHWM, kQueue);
    dealer_.Set(ZMQ_RCVHWM, kQueue);
  }

  void SetReceiver(Receiver* receiver) override { receiver_ = receiver; }

  Status Send(const ClientId& to, Frames frames) override {
    if (to != kAggregator || cut_) return Unavailable(Str("[net] no link to ", to));
    std::vector<Blob> parts{std::move(frames.control)};
    if (!frames.chunk.empty()) parts.push_back(std::move(frames.chunk));
    const zmq::Sent sent = dealer_.Send(parts);
    owner_.Again(this);
    if (sent == zmq::Sent::kOk) return OkStatus();
    if (sent == zmq::Sent::kFull && heard_ > 0) {
      return ResourceExhausted(Str("[net] the queue to ", to, " is full"));
    }
    return Unavailable(Str("[net] no link to ", to));
  }

  void Cut(const ClientId& /*peer*/, const Status& /*why*/) override { cut_ = true; }

  [[nodiscard]] uint64_t heard() const override { return heard_; }

 private:
  friend class Impl;

  Impl& owner_;
  zmq::Socket dealer_;
  Receiver* receiver_ = nullptr;
  uint64_t heard_ = 0;
  bool cut_ = false;
  bool again_ = false;  // is in the owner's list
};

Result<ZmqLink*> ZmqLinks::Impl::Add(const KeyPair& keys) {
  WEFT_CHECK(links_.size() < options_.links_max, "more links than asked for: ", links_.size());
  auto link = std::make_unique<Link>(*this, keys);
  if (const int error = link->dealer_.Connect(options_.endpoint); error != 0) {
    return InvalidArgument(
        Str("[net] cannot connect to ", options_.endpoint, ": ", zmq_strerror(error)));
  }
  epoll_event event{.events = EPOLLIN, .data = {.ptr = link.get()}};
  if (epoll_ctl(ready_, EPOLL_CTL_ADD, link->dealer_.Fd(), &event) != 0) {
    return ResourceExhausted(Str("[net] link ", links_.size(), " cannot be watched: ", errno));
  }
  Again(link.get());
  links_.push_back(std::move(link));
  return links_.back().get();
}

void ZmqLinks::Impl::Again(Link* link) {
  if (!std::exchange(link->again_, true)) again_.push_back(link);
}

void ZmqLinks::Impl::Run(int budget) {
  for (Link* link : std::exchange(again_, {})) {
    link->again_ = false;
    Serve(link);
  }
  std::vector<epoll_event> events(static_cast<size_t>(budget));
  const int count = epoll_wait(ready_, events.data(), budget, 0);
  for (int i = 0; i < count; ++i) {
    Serve(static_cast<Link*>(events[static_cast<size_t>(i)].data.ptr));
  }
}

void ZmqLinks::Impl::Serve(Link* link) {
  constexpr int kAtOnce = 16;
  for (int i = 0; i < kAtOnce; ++i) {
    std::optional<zmq::Received> message = link->dealer_.Receive(limits::kFramesPerMessageMax);
    if (!message) return;
    ++link->heard_;
    if (link->cut_ || link->receiver_ == nullptr) continue;
    Frames frames{.control = std::move(message->frames[0]), .chunk = {}};
    if (message->frames.size() > 1) frames.chunk = std::move(message->frames[1]);
    link->receiver_->OnFrames(kAggregator, std::move(frames));
  }
  Again(link);
}

ZmqLinks::ZmqLinks(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqLinks::~ZmqLinks() = default;

Result<std::unique_ptr<ZmqLinks>> ZmqLinks::Open(EventLoop& loop, Options options) {
  WEFT_TRY(zmq::CheckLibrary());
  WEFT_TRY(zmq::CheckEndpoint("[net] links", options.endpoint));
  if (!IsKeyText(options.server_key)) {
    return InvalidArgument("[net] links: the server's key is not of 40 Z85 characters");
  }
  WEFT_TRY(NeedDescriptors(Str(options.links_max, " links"),
                           kDescriptorsPerLink * options.links_max + kDescriptorsBeside));
  return std::unique_ptr<ZmqLinks>(new ZmqLinks(std::make_unique<Impl>(loop, std::move(options))));
}

Result<ZmqLink*> ZmqLinks::Add(const KeyPair& keys) { return impl_->Add(keys); }

// ---- the bare ROUTER ----

class ZmqEcho::Impl {
 public:
  Impl(EventLoop& loop, const KeyPair& keys)
      : loop_(loop), context_(1), router_(context_, ZMQ_ROUTER) {
    zmq::SetCommonOptions(router_, kEndpoint, Nanos(0));
    router_.Set(ZMQ_CURVE_SERVER, 1);
    router_.Set(ZMQ_CURVE_SECRETKEY, keys.secret_key.view());
    router_.Set(ZMQ_BACKLOG, kBacklog);
  }

  Status Bind() {
    if (const int error = router_.Bind(kEndpoint); error != 0) {
      return ResourceExhausted(Str("[net] cannot bind ", kEndpoint, ": ", zmq_strerror(error)));
    }
    endpoint_ = router_.LastEndpoint();
    source_.emplace(loop_, router_, [this](int budget) {
      for (int i = 0; i < budget; ++i) {
        const std::optional<zmq::Received> message =
            router_.Receive(1 + limits::kFramesPerMessageMax);
        if (!message) return;
        (void)router_.Send(message->frames);
      }
    });
    return OkStatus();
  }

  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }

 private:
  static constexpr const char* kEndpoint = "tcp://127.0.0.1:*";

  EventLoop& loop_;
  zmq::Context context_;
  zmq::Socket router_;
  std::string endpoint_;
  std::optional<zmq::SocketSource> source_;
};

ZmqEcho::ZmqEcho(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqEcho::~ZmqEcho() = default;

Result<std::unique_ptr<ZmqEcho>> ZmqEcho::Bind(EventLoop& loop, const KeyPair& keys) {
  WEFT_TRY(zmq::CheckLibrary());
  auto impl = std::make_unique<Impl>(loop, keys);
  WEFT_TRY(impl->Bind());
  return std::unique_ptr<ZmqEcho>(new ZmqEcho(std::move(impl)));
}

const std::string& ZmqEcho::endpoint() const { return impl_->endpoint(); }

}  // namespace weft
