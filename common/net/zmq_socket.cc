#include "common/net/zmq_socket.h"

#include <cerrno>
#include <cstring>

#include <zmq.h>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft::zmq {
namespace {

constexpr int kOldestVersion = ZMQ_MAKE_VERSION(4, 3, 4);
constexpr size_t kCopyBelow = 4096;  // a small frame is copied: that is cheaper than sharing it
constexpr const char* kMonitorEndpoint = "inproc://weft.monitor";

// A received frame; the Blob made from it owns it.
struct Frame {
  Frame() { zmq_msg_init(&message); }
  ~Frame() { zmq_msg_close(&message); }
  Frame(const Frame&) = delete;
  Frame& operator=(const Frame&) = delete;
  zmq_msg_t message;
};

// Called by libzmq, in one of its threads, when a shared frame has left.
void ReleaseOwner(void*, void* hint) { delete static_cast<std::shared_ptr<const void>*>(hint); }

std::string Property(zmq_msg_t* message, const char* name) {
  const char* value = zmq_msg_gets(message, name);
  return value == nullptr ? "" : value;
}

}  // namespace

Status CheckLibrary() {
  int major = 0, minor = 0, patch = 0;
  zmq_version(&major, &minor, &patch);
  if (ZMQ_MAKE_VERSION(major, minor, patch) < kOldestVersion) {
    return FailedPrecondition(
        Str("[net] libzmq ", major, ".", minor, ".", patch,
            " has known remote vulnerabilities, wanted 4.3.4 or later: update libzmq"));
  }
  if (zmq_has("curve") == 0) {
    return FailedPrecondition(
        "[net] this libzmq was built without CURVE: links could not be encrypted");
  }
  return OkStatus();
}

Status CheckEndpoint(std::string_view where, std::string_view endpoint) {
  constexpr std::string_view kTcp = "tcp://";
  if (!endpoint.starts_with(kTcp) || endpoint.size() == kTcp.size()) {
    return InvalidArgument(
        Str(where, ": endpoint \"", endpoint,
            "\" is not tcp://HOST:PORT; CURVE encrypts tcp links only, so no other is taken"));
  }
  const size_t colon = endpoint.rfind(':');
  if (colon < kTcp.size() || colon + 1 == endpoint.size()) {
    return InvalidArgument(
        Str(where, ": endpoint \"", endpoint, "\" names no port, wanted tcp://HOST:PORT"));
  }
  return OkStatus();
}

Context::Context(int io_threads, int sockets_max) : handle_(zmq_ctx_new()) {
  WEFT_CHECK(handle_ != nullptr, "zmq_ctx_new");
  zmq_ctx_set(handle_, ZMQ_IO_THREADS, io_threads);
  if (sockets_max > 0) zmq_ctx_set(handle_, ZMQ_MAX_SOCKETS, sockets_max);
}

Context::~Context() {
  while (zmq_ctx_term(handle_) != 0 && errno == EINTR) {
  }
}

Socket::Socket(Context& context, int type) : handle_(zmq_socket(context.handle(), type)) {
  WEFT_CHECK(handle_ != nullptr, "zmq_socket: ", zmq_strerror(errno));
}

Socket::~Socket() { zmq_close(handle_); }

void Socket::Set(int option, int value) {
  WEFT_CHECK(zmq_setsockopt(handle_, option, &value, sizeof(value)) == 0, "option ", option, " = ",
             value, ": ", zmq_strerror(errno));
}

void Socket::SetLong(int option, int64_t value) {
  WEFT_CHECK(zmq_setsockopt(handle_, option, &value, sizeof(value)) == 0, "option ", option, " = ",
             value, ": ", zmq_strerror(errno));
}

void Socket::Set(int option, std::string_view value) {
  const std::string text(value);  // CURVE keys as text must end in a NUL
  const bool is_key = option == ZMQ_CURVE_PUBLICKEY || option == ZMQ_CURVE_SECRETKEY ||
                      option == ZMQ_CURVE_SERVERKEY;
  WEFT_CHECK(zmq_setsockopt(handle_, option, text.c_str(), text.size() + (is_key ? 1 : 0)) == 0,
             "option ", option, ": ", zmq_strerror(errno));
}

std::string Socket::LastEndpoint() const {
  std::string endpoint(512, '\0');
  size_t size = endpoint.size();
  WEFT_CHECK(zmq_getsockopt(handle_, ZMQ_LAST_ENDPOINT, endpoint.data(), &size) == 0);
  return endpoint.c_str();
}

int Socket::Fd() const {
  int fd = -1;
  size_t size = sizeof(fd);
  WEFT_CHECK(zmq_getsockopt(handle_, ZMQ_FD, &fd, &size) == 0, zmq_strerror(errno));
  return fd;
}

bool Socket::Readable() const {
  int events = 0;
  size_t size = sizeof(events);
  while (zmq_getsockopt(handle_, ZMQ_EVENTS, &events, &size) != 0) {
    WEFT_CHECK(errno == EINTR, zmq_strerror(errno));
  }
  return (events & ZMQ_POLLIN) != 0;
}

int Socket::Bind(const std::string& endpoint) {
  return zmq_bind(handle_, endpoint.c_str()) == 0 ? 0 : errno;
}

int Socket::Connect(const std::string& endpoint) {
  return zmq_connect(handle_, endpoint.c_str()) == 0 ? 0 : errno;
}

std::optional<Received> Socket::Receive(size_t frames_max) {
  Received out;
  for (bool more = true; more;) {
    const auto frame = std::make_shared<Frame>();
    if (zmq_msg_recv(&frame->message, handle_, ZMQ_DONTWAIT) < 0) {
      if (errno == EINTR) continue;
      WEFT_CHECK(errno == EAGAIN && out.frames.empty(), "zmq_msg_recv: ", zmq_strerror(errno));
      return std::nullopt;
    }
    more = zmq_msg_more(&frame->message) != 0;
    const size_t size = zmq_msg_size(&frame->message);
    out.bytes += size;
    out.user_id = Property(&frame->message, "User-Id");
    out.key = Property(&frame->message, "X-Key");
    out.fd = zmq_msg_get(&frame->message, ZMQ_SRCFD);
    if (out.frames.size() == frames_max) {
      out.too_many = true;
      continue;
    }
    const auto* bytes = static_cast<const std::byte*>(zmq_msg_data(&frame->message));
    out.frames.push_back(Blob::Share({bytes, size}, frame));
  }
  return out;
}

Sent Socket::SendFrame(const Blob& frame, bool more) {
  zmq_msg_t message;
  if (frame.size() < kCopyBelow) {
    WEFT_CHECK(zmq_msg_init_size(&message, frame.size()) == 0, "no memory for ", frame.size(),
               " bytes");
    if (!frame.empty()) std::memcpy(zmq_msg_data(&message), frame.data(), frame.size());
  } else {
    auto owner = std::make_unique<std::shared_ptr<const void>>(frame.owner());
    // libzmq only reads from a message it was given to send; its interface lacks the const.
    auto* bytes = const_cast<std::byte*>(frame.data());
    WEFT_CHECK(zmq_msg_init_data(&message, bytes, frame.size(), ReleaseOwner, owner.get()) == 0);
    (void)owner.release();
  }
  int error = 0;
  do {
    error =
        zmq_msg_send(&message, handle_, ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0)) < 0 ? errno : 0;
  } while (error == EINTR);
  if (error == 0) return Sent::kOk;
  zmq_msg_close(&message);
  if (error == EAGAIN) return Sent::kFull;
  if (error == EHOSTUNREACH) return Sent::kNoPeer;
  return Sent::kClosed;
}

Sent Socket::Send(const std::vector<Blob>& frames) {
  for (size_t i = 0; i < frames.size(); ++i) {
    const Sent sent = SendFrame(frames[i], i + 1 < frames.size());
    if (sent != Sent::kOk) return sent;
  }
  return Sent::kOk;
}

Monitor::Monitor(Context& context, Socket& socket, int events) {
  WEFT_CHECK(zmq_socket_monitor(socket.handle(), kMonitorEndpoint, events) == 0,
             zmq_strerror(errno));
  pair_ = std::make_unique<Socket>(context, ZMQ_PAIR);
  pair_->Set(ZMQ_LINGER, 0);
  WEFT_CHECK(pair_->Connect(kMonitorEndpoint) == 0, zmq_strerror(errno));
}

std::optional<MonitorEvent> Monitor::Next() {
  const std::optional<Received> message = pair_->Receive(2);
  if (!message) return std::nullopt;
  // Frame 1: event (16 bits), value (32 bits), in this machine's byte order.
  WEFT_CHECK(message->frames[0].size() == 6, message->frames[0].size());
  uint16_t event = 0;
  uint32_t value = 0;
  std::memcpy(&event, message->frames[0].data(), sizeof(event));
  std::memcpy(&value, message->frames[0].data() + sizeof(event), sizeof(value));
  return MonitorEvent{event, static_cast<int>(value)};
}

SocketSource::SocketSource(EventLoop& loop, Socket& socket, std::function<void(int)> run)
    : loop_(loop), socket_(socket), run_(std::move(run)), fd_(socket.Fd()) {
  loop_.Add(this);
}

SocketSource::~SocketSource() { loop_.Remove(this); }

void SetCommonOptions(Socket& socket, const std::string& endpoint, Nanos linger) {
  constexpr int kHandshakeMs = 5000;
  socket.SetLong(ZMQ_MAXMSGSIZE, static_cast<int64_t>(limits::kFrameBytesMax));
  socket.Set(ZMQ_HANDSHAKE_IVL, kHandshakeMs);
  socket.Set(
      ZMQ_LINGER,
      static_cast<int>(std::chrono::duration_cast<std::chrono::milliseconds>(linger).count()));
  socket.Set(ZMQ_TCP_KEEPALIVE, 1);
  socket.Set(ZMQ_TCP_KEEPALIVE_IDLE, 60);
  socket.Set(ZMQ_TCP_KEEPALIVE_INTVL, 10);
  socket.Set(ZMQ_TCP_KEEPALIVE_CNT, 3);
  if (endpoint.find('[') != std::string::npos) socket.Set(ZMQ_IPV6, 1);
}

void SetPings(Socket& socket) {
  constexpr int kPingMs = 10000;
  constexpr int kAnswerMs = 30000;
  socket.Set(ZMQ_HEARTBEAT_IVL, kPingMs);
  socket.Set(ZMQ_HEARTBEAT_TIMEOUT, kAnswerMs);
  socket.Set(ZMQ_HEARTBEAT_TTL, 0);  // else it is a timer of the aggregator's after all
}

}  // namespace weft::zmq
