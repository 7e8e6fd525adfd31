#include "common/net/zmq_server.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>
#include <set>

#include <zmq.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/net/connection_watch.h"
#include "common/net/zap.h"
#include "common/net/zmq_socket.h"

namespace weft {
namespace {

// The library has this option in every build, its header only with drafts: without it a domain is
// advice.
constexpr int kZapEnforceDomain = 93;
constexpr int kBacklog = 4096;  // who finds it full comes again after a second
// Chunks share memory with the payload until libzmq encrypts them, so a long queue out costs
// little; what comes in does not.
constexpr int kQueueOut = 256;
constexpr int kQueueIn = 2 * static_cast<int>(limits::kChunksInFlightMax);
constexpr Nanos kRereadEvery = std::chrono::seconds(1);
// The kernel is asked about each connection so often, or every 0.1 ms for each where that is
// longer, which takes about a hundredth of the time; of many a slice at a time, so that no message
// waits for all.
constexpr Nanos kLookEvery = std::chrono::milliseconds(250);
constexpr Nanos kLookEach = std::chrono::microseconds(100);
constexpr size_t kLookAtMost = 256;
constexpr Nanos kLastWords = std::chrono::seconds(1);
constexpr size_t kTombsMax = 4 * limits::kPeersMax;

struct Connection {
  ClientId name;
  std::string key;
  int fd = -1;
  std::string remote;
  bool cut = false;  // nothing is delivered from it or sent to it
};

}  // namespace

class ZmqServer::Impl {
 public:
  Impl(EventLoop& loop, Options options, WatchedAllowList allowed)
      : loop_(loop),
        allowed_(std::move(allowed)),
        context_(options.io_threads),
        zap_(context_, loop, allowed_.list(), [this](const std::string& key) { OnRefused(key); }),
        router_(context_, ZMQ_ROUTER),
        watch_({.untaken_max = options.untaken_bytes_max, .silence_max = options.silence_max}),
        log_(options.log) {
    SetOptions(options);
  }

  ~Impl() {
    loop_.Cancel(reread_);
    loop_.Cancel(look_);
    for (const TimerId timer : hang_ups_) loop_.Cancel(timer);
  }

  Status Bind(const std::string& endpoint) {
    const int error = router_.Bind(endpoint);
    if (error == EADDRINUSE) {
      return AlreadyExists(
          Str("[net] ", endpoint,
              " is in use: another aggregator or program listens there; stop it, or "
              "set another server.bind"));
    }
    if (error != 0)
      return InvalidArgument(Str("[net] cannot bind ", endpoint, ": ", zmq_strerror(error)));
    endpoint_ = router_.LastEndpoint();
    monitor_source_.emplace(loop_, monitor_.socket(), [this](int budget) { RunMonitor(budget); });
    router_source_.emplace(loop_, router_, [this](int budget) { RunRouter(budget); });
    ScheduleReread();
    ScheduleLook();
    return OkStatus();
  }

  void SetReceiver(Receiver* receiver) { receiver_ = receiver; }

  Status Send(const ClientId& to, Frames frames) {
    if (frames.control.size() > limits::kControlBytesMax ||
        frames.chunk.size() > limits::kChunkBytes) {
      return InvalidArgument(Str("[net] to ", to, ": frames of ", frames.control.size(), " and ",
                                 frames.chunk.size(), " bytes, at most ", limits::kControlBytesMax,
                                 " and ", limits::kChunkBytes));
    }
    const auto route = routes_.find(to);
    if (route == routes_.end()) return Unavailable(Str("[net] no link to ", to));
    std::vector<Blob> parts{Blob::Copy(std::string_view(route->second)), std::move(frames.control)};
    if (!frames.chunk.empty()) parts.push_back(std::move(frames.chunk));
    switch (router_.Send(parts)) {
      case zmq::Sent::kOk:
        return OkStatus();
      case zmq::Sent::kFull:
        return ResourceExhausted(Str("[net] the queue to ", to, " is full"));
      default:
        return Unavailable(Str("[net] the link to ", to, " is gone"));
    }
  }

  void Cut(const ClientId& peer) {
    const auto route = routes_.find(peer);
    if (route == routes_.end()) return;
    const std::string id = route->second;
    connections_.at(id).cut = true;
    routes_.erase(route);
    // libzmq cannot say when its queue is empty; a second is enough for the refusal in it.
    const auto timer = std::make_shared<TimerId>();
    *timer = loop_.At(loop_.Now() + kLastWords, [this, id, timer] {
      hang_ups_.erase(*timer);
      const auto it = connections_.find(id);
      if (it != connections_.end()) HangUp(it->second);
    });
    hang_ups_.insert(*timer);
  }

  [[nodiscard]] const std::string& endpoint() const { return endpoint_; }
  [[nodiscard]] size_t peers() const { return routes_.size(); }

 private:
  void SetOptions(const Options& options) {
    zmq::SetCommonOptions(router_, options.endpoint, options.linger);
    router_.Set(ZMQ_CURVE_SERVER, 1);
    router_.Set(ZMQ_CURVE_SECRETKEY, options.keys.secret_key.view());
    router_.Set(ZMQ_ZAP_DOMAIN, std::string_view(ZapHandler::kDomain));
    router_.Set(kZapEnforceDomain, 1);
    router_.Set(ZMQ_ROUTER_MANDATORY, 1);
    router_.Set(ZMQ_ROUTER_HANDOVER, 0);
    router_.Set(ZMQ_BACKLOG, kBacklog);
    router_.Set(ZMQ_SNDHWM, kQueueOut);
    router_.Set(ZMQ_RCVHWM, kQueueIn);
  }

  void ScheduleReread() {
    reread_ = loop_.At(loop_.Now() + kRereadEvery, [this] {
      if (allowed_.Reread()) CutRevoked();
      ReportAllowList();
      ScheduleReread();
    });
  }

  void ScheduleLook() {
    const auto all = static_cast<int64_t>(std::max<size_t>(watch_.size(), 1));
    const int64_t slice = std::min(all, static_cast<int64_t>(kLookAtMost));
    const Nanos wait = std::max(kLookEvery, kLookEach * all) * slice / all;
    look_ = loop_.At(loop_.Now() + wait, [this] {
      const ConnectionWatch::Ended ended = watch_.Look(loop_.Now(), kLookAtMost);
      if (ended.flooders > 0 && log_ != nullptr) {
        log_->Warn("connections cut: too much sent without finishing a message",
                   {{"connections", ended.flooders}});
      }
      if (ended.silent > 0 && log_ != nullptr) {
        log_->Info("connections cut: nothing came, not even a ping",
                   {{"connections", ended.silent}});
      }
      ScheduleLook();
    });
  }

  // One line when the file stops being readable, one when it is again.
  void ReportAllowList() {
    if (allowed_.problem() == reported_) return;
    reported_ = allowed_.problem();
    if (log_ == nullptr) return;
    if (reported_.ok()) log_->Info("the allow-list can be read again");
    if (!reported_.ok())
      log_->Warn("the allow-list is not used as it is now; the last good one holds",
                 {{"why", reported_}});
  }

  [[nodiscard]] bool Allowed(const Connection& connection) const {
    const std::optional<ClientId> name = allowed_.list().NameOf(connection.key);
    return name && *name == connection.name;
  }

  void CutRevoked() {
    std::vector<std::string> revoked;
    for (const auto& [id, connection] : connections_) {
      if (!Allowed(connection)) revoked.push_back(id);
    }
    for (const std::string& id : revoked) {
      DropNow(id, PermissionDenied("its key was revoked: the allow-list no longer has it"));
    }
  }

  // Nothing more is taken from the connection or sent to it; the receiver is told if it was the
  // peer's present one.
  void DropNow(const std::string& id, const Status& why) {
    Connection& connection = connections_.at(id);
    connection.cut = true;
    HangUp(connection);
    const ClientId name = connection.name;
    const auto route = routes_.find(name);
    if (route == routes_.end() || route->second != id) return;
    routes_.erase(route);
    if (receiver_ != nullptr) receiver_->OnPeerGone(name, why.Within(Str("[net] ", name)));
  }

  // ROUTER has no call to end one connection.
  static void HangUp(const Connection& connection) {
    weft::HangUp(connection.fd, connection.remote);
  }

  void RunRouter(int budget) {
    for (int i = 0; i < budget; ++i) {
      std::optional<zmq::Received> message = router_.Receive(1 + limits::kFramesPerMessageMax);
      if (!message) return;
      OnMessage(*message);
    }
  }

  void OnMessage(zmq::Received& message) {
    watch_.Took(message.fd, message.bytes);
    const std::string id(message.frames[0].view());
    if (tombs_.contains(id)) return;
    auto it = connections_.find(id);
    if (it == connections_.end()) {
      if (!Admit(id, message)) return;
      it = connections_.find(id);
      if (it == connections_.end()) return;
    }
    if (it->second.cut) return;
    if (message.too_many || message.frames.size() < 2) {
      return DropNow(
          id, InvalidArgument(Str("sent a message of ", message.too_many ? "too many" : "too few",
                                  " frames, wanted 1 to ", limits::kFramesPerMessageMax)));
    }
    const ClientId name = it->second.name;
    Frames frames{.control = std::move(message.frames[1]), .chunk = {}};
    if (message.frames.size() > 2) frames.chunk = std::move(message.frames[2]);
    if (frames.control.size() > limits::kControlBytesMax ||
        frames.chunk.size() > limits::kChunkBytes) {
      return DropNow(
          id, InvalidArgument(Str("sent frames of ", frames.control.size(), " and ",
                                  frames.chunk.size(), " bytes, at most ", limits::kControlBytesMax,
                                  " and ", limits::kChunkBytes)));
    }
    if (receiver_ != nullptr) receiver_->OnFrames(name, std::move(frames));
  }

  // The first message of a connection: the peer is who ZAP said, whatever routing id it chose for
  // itself.
  bool Admit(const std::string& id, const zmq::Received& message) {
    // Ends of earlier connections first, so that a descriptor met again is not taken for the old
    // one.
    RunMonitor(static_cast<int>(limits::kPeersMax));
    Connection connection{.name = ClientId{message.user_id},
                          .key = message.key,
                          .fd = message.fd,
                          .remote = RemoteOf(message.fd),
                          .cut = false};
    const bool allowed = Allowed(connection);
    connection.cut = !allowed || connections_.size() >= limits::kPeersMax;
    by_fd_[connection.fd] = id;
    if (connection.cut) HangUp(connection);
    const auto [it, added] = connections_.emplace(id, std::move(connection));
    WEFT_CHECK(added);
    if (it->second.cut) return false;
    const auto older = routes_.find(it->second.name);
    if (older != routes_.end()) {
      DropNow(std::string(older->second),
              Unavailable("a newer connection with the same key took its place"));
    }
    routes_[it->second.name] = id;
    return true;
  }

  void RunMonitor(int budget) {
    for (int i = 0; i < budget; ++i) {
      const std::optional<zmq::MonitorEvent> event = monitor_.Next();
      if (!event) return;
      if (event->event == ZMQ_EVENT_ACCEPTED) watch_.Accepted(event->value);
      if (event->event == ZMQ_EVENT_DISCONNECTED) {
        watch_.Closed(event->value);
        OnDisconnected(event->value);
      }
    }
  }

  void OnDisconnected(int fd) {
    const auto found = by_fd_.find(fd);
    if (found == by_fd_.end()) return;
    const std::string id = found->second;
    // What the peer said before it left, a goodbye perhaps, is delivered first; nothing of it
    // later.
    if (!draining_) {
      draining_ = true;
      RunRouter(kQueueIn * 8);
      draining_ = false;
    }
    const auto it = connections_.find(id);
    if (it == connections_.end()) return;
    const Connection connection = std::move(it->second);
    connections_.erase(it);
    if (const auto at = by_fd_.find(fd); at != by_fd_.end() && at->second == id) by_fd_.erase(at);
    Bury(id);
    const auto route = routes_.find(connection.name);
    if (connection.cut || route == routes_.end() || route->second != id) return;
    routes_.erase(route);
    if (receiver_ != nullptr) {
      receiver_->OnPeerGone(connection.name,
                            Unavailable(Str("[net] ", connection.name, ": the link was closed")));
    }
  }

  void Bury(const std::string& id) {
    tombs_.insert(id);
    tomb_order_.push_back(id);
    if (tomb_order_.size() <= kTombsMax) return;
    tombs_.erase(tomb_order_.front());
    tomb_order_.pop_front();
  }

  // A refused client comes back again and again: one line for each key.
  void OnRefused(const std::string& key) {
    if (log_ == nullptr || refused_.size() >= limits::kPeersMax || !refused_.insert(key).second)
      return;
    log_->Warn("connection refused: its key is not on the allow-list",
               {{"key_begins", key.substr(0, 8)}});
  }

  EventLoop& loop_;
  WatchedAllowList allowed_;
  zmq::Context context_;
  ZapHandler zap_;
  zmq::Socket router_;
  zmq::Monitor monitor_{context_, router_, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED};
  ConnectionWatch watch_;
  Receiver* receiver_ = nullptr;
  std::string endpoint_;
  std::map<std::string, Connection> connections_;  // by routing id
  std::map<ClientId, std::string> routes_;         // a peer's present connection
  std::map<int, std::string> by_fd_;
  std::set<std::string>
      tombs_;  // routing ids of ended connections: messages of theirs still queued are dropped
  std::deque<std::string> tomb_order_;
  std::set<TimerId> hang_ups_;
  TimerId reread_;
  TimerId look_;
  bool draining_ = false;
  std::set<std::string> refused_;
  Status reported_;
  const log::Logger* log_;
  std::optional<zmq::SocketSource> monitor_source_;
  std::optional<zmq::SocketSource> router_source_;
};

ZmqServer::ZmqServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqServer::~ZmqServer() = default;

Result<std::unique_ptr<ZmqServer>> ZmqServer::Bind(EventLoop& loop, Options options) {
  WEFT_TRY(zmq::CheckLibrary());
  WEFT_TRY(zmq::CheckEndpoint("[net] server.bind", options.endpoint));
  WEFT_TRY_ASSIGN(WatchedAllowList allowed, WatchedAllowList::Open(options.allow_list));
  const std::string endpoint = options.endpoint;
  auto impl = std::make_unique<Impl>(loop, std::move(options), std::move(allowed));
  WEFT_TRY(impl->Bind(endpoint));
  return std::unique_ptr<ZmqServer>(new ZmqServer(std::move(impl)));
}

void ZmqServer::SetReceiver(Receiver* receiver) { impl_->SetReceiver(receiver); }
Status ZmqServer::Send(const ClientId& to, Frames frames) {
  return impl_->Send(to, std::move(frames));
}
void ZmqServer::Cut(const ClientId& peer, const Status& /*why*/) { impl_->Cut(peer); }
const std::string& ZmqServer::endpoint() const { return impl_->endpoint(); }
size_t ZmqServer::peers() const { return impl_->peers(); }

}  // namespace weft
