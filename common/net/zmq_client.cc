#include "common/net/zmq_client.h"

#include <algorithm>
#include <cerrno>

#include <zmq.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/net/zmq_socket.h"

namespace weft {
namespace {

constexpr int kQueue = 4 * static_cast<int>(limits::kChunksInFlightMax);
// An aggregator that stops in the middle of a handshake looks like one that cannot read our
// greeting; three in a row do not.
constexpr int kFailuresBeforeRefusal = 3;

int Millis(Nanos time) {
  return static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(time).count());
}

}  // namespace

class ZmqClient::Impl {
 public:
  Impl(EventLoop& loop, const Options& options)
      : loop_(loop),
        endpoint_(options.endpoint),
        backoff_min_(options.reconnect_min),
        backoff_max_(options.reconnect_max),
        backoff_(options.reconnect_min),
        jitter_(RandomStream::Derive(static_cast<uint64_t>(loop.WallMicros()),
                                     {"reconnect", options.keys.public_key})),
        context_(options.io_threads),
        dealer_(context_, ZMQ_DEALER) {
    zmq::SetCommonOptions(dealer_, options.endpoint, options.linger);
    zmq::SetPings(dealer_);
    dealer_.Set(ZMQ_CURVE_SERVERKEY, options.server_key);
    dealer_.Set(ZMQ_CURVE_PUBLICKEY, options.keys.public_key);
    dealer_.Set(ZMQ_CURVE_SECRETKEY, options.keys.secret_key.view());
    dealer_.Set(ZMQ_IMMEDIATE,
                1);  // queue nothing for a link that does not exist: it would be stale when it does
    dealer_.Set(ZMQ_RECONNECT_IVL, Millis(options.reconnect_min));
    dealer_.Set(ZMQ_RECONNECT_IVL_MAX, Millis(options.reconnect_max));
    dealer_.Set(ZMQ_CONNECT_TIMEOUT, 10000);
    dealer_.Set(ZMQ_SNDHWM, kQueue);
    dealer_.Set(ZMQ_RCVHWM, kQueue);
    monitor_source_.emplace(loop, monitor_.socket(), [this](int budget) { RunMonitor(budget); });
    dealer_source_.emplace(loop, dealer_, [this](int budget) { RunDealer(budget); });
  }

  ~Impl() { loop_.Cancel(again_); }

  Status Connect() {
    const int error = dealer_.Connect(endpoint_);
    if (error != 0)
      return InvalidArgument(Str("[net] cannot connect to ", endpoint_, ": ", zmq_strerror(error)));
    return OkStatus();
  }

  void SetReceiver(Receiver* receiver) { receiver_ = receiver; }

  Status Send(const ClientId& to, Frames frames) {
    if (to != kAggregator || cut_ || !connected_) return Unavailable(Str("[net] no link to ", to));
    if (frames.control.size() > limits::kControlBytesMax ||
        frames.chunk.size() > limits::kChunkBytes) {
      return InvalidArgument(Str("[net] to ", to, ": frames of ", frames.control.size(), " and ",
                                 frames.chunk.size(), " bytes, at most ", limits::kControlBytesMax,
                                 " and ", limits::kChunkBytes));
    }
    std::vector<Blob> parts{std::move(frames.control)};
    if (!frames.chunk.empty()) parts.push_back(std::move(frames.chunk));
    switch (dealer_.Send(parts)) {
      case zmq::Sent::kOk:
        return OkStatus();
      case zmq::Sent::kFull:
        return ResourceExhausted(Str("[net] the queue to ", to, " is full"));
      default:
        return Unavailable(Str("[net] the link to ", to, " is gone"));
    }
  }

  void Cut() {
    cut_ = true;
    connected_ = false;
    loop_.Cancel(again_);
    (void)zmq_disconnect(dealer_.handle(), endpoint_.c_str());
  }

  [[nodiscard]] bool connected() const { return connected_; }

 private:
  void RunDealer(int budget) {
    for (int i = 0; i < budget; ++i) {
      std::optional<zmq::Received> message = dealer_.Receive(limits::kFramesPerMessageMax);
      if (!message) return;
      if (cut_ || receiver_ == nullptr) continue;
      if (message->too_many) {
        Cut();
        receiver_->OnPeerGone(
            kAggregator, InvalidArgument("[net] the aggregator sent a message of too many frames"));
        return;
      }
      Frames frames{.control = std::move(message->frames[0]), .chunk = {}};
      if (message->frames.size() > 1) frames.chunk = std::move(message->frames[1]);
      receiver_->OnFrames(kAggregator, std::move(frames));
    }
  }

  void RunMonitor(int budget) {
    for (int i = 0; i < budget; ++i) {
      const std::optional<zmq::MonitorEvent> event = monitor_.Next();
      if (!event) return;
      if (!cut_) OnEvent(*event);
    }
  }

  void OnEvent(const zmq::MonitorEvent& event) {
    switch (event.event) {
      case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        connected_ = was_linked_ = true;
        failures_ = 0;
        backoff_ = backoff_min_;
        return;
      case ZMQ_EVENT_DISCONNECTED:
        if (!connected_) return;
        RunDealer(kQueue);  // what it said before it left
        connected_ = false;
        return Gone(Unavailable(Str("[net] the link to ", endpoint_, " was closed")));
      case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
        ConnectLater();
        return Gone(PermissionDenied(
            Str("[net] ", endpoint_, " refused this site's key (status ", event.value,
                "): it is not on the aggregator's allow-list, or was revoked. Ask for `weft keys "
                "allow` with the key that `weft keys show` prints")));
      case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        ConnectLater();
        return Gone(PermissionDenied(Str("[net] ", endpoint_,
                                         " does not speak CURVE as an aggregator does: is this the "
                                         "right address?")));
      case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        // Closed by the other end; a handshake that only took too long says nothing about keys.
        if (event.value != EPIPE && event.value != ECONNRESET) return;
        // The keys were right before: what closes the link now is a proxy or tunnel whose
        // aggregator is down for the moment.
        if (was_linked_) return;
        if (++failures_ < kFailuresBeforeRefusal) return;
        return Gone(PermissionDenied(
            Str("[net] ", endpoint_, " closed the link during the handshake ", failures_,
                " times: the server key this site was given is not the aggregator's, or no "
                "aggregator listens there")));
      default:
        return;
    }
  }

  // libzmq comes back by itself from a lost link, but gives up when it was refused; the key may be
  // allowed later.
  void ConnectLater() {
    loop_.Cancel(again_);
    again_ =
        loop_.At(loop_.Now() + Seconds(ToSeconds(backoff_) * (0.5 + jitter_.Uniform())), [this] {
          (void)zmq_disconnect(dealer_.handle(),
                               endpoint_.c_str());  // there may be nothing left to end
          (void)zmq_connect(dealer_.handle(), endpoint_.c_str());
        });
    backoff_ = std::min(2 * backoff_, backoff_max_);
  }

  void Gone(const Status& why) {
    if (receiver_ != nullptr) receiver_->OnPeerGone(kAggregator, why);
  }

  EventLoop& loop_;
  std::string endpoint_;
  Nanos backoff_min_;
  Nanos backoff_max_;
  Nanos backoff_;
  RandomStream jitter_;
  TimerId again_;
  zmq::Context context_;
  zmq::Socket dealer_;
  zmq::Monitor monitor_{context_, dealer_,
                        ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                            ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                            ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL};
  Receiver* receiver_ = nullptr;
  bool connected_ = false;
  bool was_linked_ = false;  // at least once
  bool cut_ = false;
  int failures_ = 0;
  std::optional<zmq::SocketSource> monitor_source_;
  std::optional<zmq::SocketSource> dealer_source_;
};

ZmqClient::ZmqClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ZmqClient::~ZmqClient() = default;

Result<std::unique_ptr<ZmqClient>> ZmqClient::Connect(EventLoop& loop, Options options) {
  WEFT_TRY(zmq::CheckLibrary());
  WEFT_TRY(zmq::CheckEndpoint("[net] server.address", options.endpoint));
  if (!IsKeyText(options.server_key)) {
    return InvalidArgument("[net] server.public-key is not a CURVE key of 40 Z85 characters");
  }
  auto impl = std::make_unique<Impl>(loop, options);
  WEFT_TRY(impl->Connect());
  return std::unique_ptr<ZmqClient>(new ZmqClient(std::move(impl)));
}

void ZmqClient::SetReceiver(Receiver* receiver) { impl_->SetReceiver(receiver); }
Status ZmqClient::Send(const ClientId& to, Frames frames) {
  return impl_->Send(to, std::move(frames));
}
void ZmqClient::Cut(const ClientId& /*peer*/, const Status& /*why*/) { impl_->Cut(); }
bool ZmqClient::connected() const { return impl_->connected(); }

}  // namespace weft
