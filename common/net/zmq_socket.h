#pragma once
// The thin layer over libzmq's C interface that server and client share: owners with destructors,
// frames that share memory with Blobs both ways, monitor events. Internal to common/net. Not
// thread-safe, like the sockets it owns.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/net/event_loop.h"

namespace weft::zmq {

/// kFailedPrecondition unless libzmq is at least 4.3.4 (earlier ones have remote holes) and has
/// CURVE.
[[nodiscard]] Status CheckLibrary();

/// kInvalidArgument unless the endpoint is tcp: CURVE protects no other transport of libzmq's.
[[nodiscard]] Status CheckEndpoint(std::string_view where, std::string_view endpoint);

class Context {
 public:
  /// `sockets_max` 0: what libzmq allows unasked, about a thousand.
  explicit Context(int io_threads, int sockets_max = 0);
  /// Waits until sockets' linger has passed.
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  [[nodiscard]] void* handle() const { return handle_; }

 private:
  void* handle_;
};

/// A message as it came: at most the frames asked for; of a longer one the rest is thrown away.
struct Received {
  std::vector<Blob> frames;
  bool too_many = false;
  size_t bytes = 0;     // of all frames, thrown away ones too
  std::string user_id;  // ZAP's name for the sender, empty without ZAP
  std::string key;      // property "X-Key" set by our ZAP handler
  int fd = -1;          // descriptor of the sender's connection
};

enum class Sent { kOk, kFull, kNoPeer, kClosed };

class Socket {
 public:
  Socket(Context& context, int type);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  [[nodiscard]] void* handle() const { return handle_; }
  /// Options that we set ourselves: failure is a bug.
  void Set(int option, int value);
  void Set(int option, std::string_view value);
  void SetLong(int option, int64_t value);
  [[nodiscard]] std::string LastEndpoint() const;
  [[nodiscard]] int Fd() const;
  [[nodiscard]] bool Readable() const;
  /// 0 or errno.
  [[nodiscard]] int Bind(const std::string& endpoint);
  [[nodiscard]] int Connect(const std::string& endpoint);

  [[nodiscard]] std::optional<Received> Receive(size_t frames_max);
  /// Large frames are not copied: libzmq keeps their owner until they have left.
  [[nodiscard]] Sent Send(const std::vector<Blob>& frames);

 private:
  [[nodiscard]] Sent SendFrame(const Blob& frame, bool more);

  void* handle_;
};

/// What happened to a socket's connections (zmq_socket_monitor).
struct MonitorEvent {
  int event = 0;
  int value = 0;  // descriptor, errno or ZAP status, by event
};

class Monitor {
 public:
  /// `events`: ZMQ_EVENT_* to be told.
  Monitor(Context& context, Socket& socket, int events);
  [[nodiscard]] std::optional<MonitorEvent> Next();
  [[nodiscard]] Socket& socket() { return *pair_; }

 private:
  std::unique_ptr<Socket> pair_;
};

/// Registers a socket with a loop; `run` handles at most `budget` messages.
class SocketSource : public EventSource {
 public:
  SocketSource(EventLoop& loop, Socket& socket, std::function<void(int)> run);
  ~SocketSource() override;
  SocketSource(const SocketSource&) = delete;
  SocketSource& operator=(const SocketSource&) = delete;
  [[nodiscard]] int Fd() const override { return fd_; }
  [[nodiscard]] bool Pending() override { return socket_.Readable(); }
  void Run(int budget) override { run_(budget); }

 private:
  EventLoop& loop_;
  Socket& socket_;
  std::function<void(int)> run_;
  int fd_;
};

/// Options both ends set (frame size, handshake interval, keep-alive, IPv6 where the endpoint needs
/// it).
void SetCommonOptions(Socket& socket, const std::string& endpoint, Nanos linger);

/// A client pings; a link that does not answer is closed and made anew. An aggregator does not:
/// libzmq keeps the timers of all connections in one list and walks it to cancel one, so that what
/// pings cost grows with the square of the members. It goes by what it hears (ConnectionWatch).
void SetPings(Socket& socket);

}  // namespace weft::zmq
