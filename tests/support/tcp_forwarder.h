#pragma once
// TcpForwarder: a tcp link in a test's hands. It listens on a port of 127.0.0.1 that the system
// chose and passes bytes on to a target, which may change. It counts them, makes them slow or late,
// and has one fault at a time: it stops passing after a given number (the connections stay open, as
// with a peer that freezes or a firewall that drops), breaks all connections, or ends one way of
// them only. A thread of its own; all methods may be called from any thread.

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <list>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include <poll.h>

namespace weft::testing {

/// From the clients to the target, and back.
enum class Way { kUp, kDown };

class TcpForwarder {
 public:
  TcpForwarder();
  ~TcpForwarder();
  TcpForwarder(const TcpForwarder&) = delete;
  TcpForwarder& operator=(const TcpForwarder&) = delete;

  /// Where clients connect, "tcp://127.0.0.1:PORT".
  [[nodiscard]] std::string endpoint() const;
  /// Where new connections lead. Without a target, or where nobody listens, they are closed.
  void SetTarget(const std::string& endpoint);

  /// What comes from now on takes so much longer, each way.
  void Delay(double latency_s);
  /// From now on so many bytes a second pass each way, all connections together.
  void Throttle(uint64_t bytes_per_s);

  // A fault comes when so many bytes have gone that way, counted from the start.

  /// No more of them go.
  void StallAfter(uint64_t bytes, Way way = Way::kUp) { Arm({Fault::kStall, way, bytes}); }
  /// All connections break, once; later ones pass.
  void CutAfter(uint64_t bytes, Way way = Way::kUp) { Arm({Fault::kCut, way, bytes}); }
  /// They break then, and after as many bytes again, and so on.
  void CutEvery(uint64_t bytes, Way way) { Arm({Fault::kCut, way, bytes, bytes}); }
  /// Who reads these bytes is told that there are no more, as if the sender had ended. The sender
  /// is told nothing, and what it sends is lost. Later connections pass.
  void HalfCloseAfter(uint64_t bytes, Way way) { Arm({Fault::kHalfClose, way, bytes}); }
  /// Ends a stall: everything held back goes on.
  void Resume();
  /// Ends a stall by breaking all connections; later ones pass.
  void Cut() { CutAfter(bytes_up()); }

  /// True when the fault has come, false if it has not within the limit.
  [[nodiscard]] bool WaitUntilReached(double limit_s = 60);

  [[nodiscard]] uint64_t bytes_up() const { return Passed(Way::kUp); }
  [[nodiscard]] uint64_t bytes_down() const { return Passed(Way::kDown); }
  [[nodiscard]] uint64_t connections() const { return connections_; }

 private:
  using Clock = std::chrono::steady_clock;

  enum class Fault { kStall, kCut, kHalfClose };
  struct Armed {
    Fault fault;
    Way way;
    uint64_t bytes;
    uint64_t again_after = 0;  // as many bytes more; 0: never
  };

  struct Piece {
    Clock::time_point due;
    std::string bytes;
  };
  /// One way of a connection: what was read and not yet written.
  struct Flow {
    std::deque<Piece> pieces;
    size_t held = 0;
    bool lost = false;  // its reader was told that it is over: what still comes goes nowhere
  };
  struct Link {
    int client = -1;
    int target = -1;
    Flow up, down;
    bool over = false;  // one end has closed: what was read is passed on, then the other closes
  };

  static Flow& FlowOf(Link& link, Way way) { return way == Way::kUp ? link.up : link.down; }
  static int& ReaderOf(Link& link, Way way) { return way == Way::kUp ? link.target : link.client; }
  static int& SenderOf(Link& link, Way way) { return way == Way::kUp ? link.client : link.target; }
  static void Close(Link& link);
  static void Break(Link& link);
  static void HalfClose(Link& link, Way way);

  [[nodiscard]] uint64_t Passed(Way way) const { return passed_[static_cast<size_t>(way)]; }
  void Arm(const Armed& armed);
  void Wake() const;

  void Run();
  [[nodiscard]] std::vector<pollfd> Watched();
  [[nodiscard]] int Patience_ms() const;
  void Refill();
  void AcceptOne();
  void Serve(Link& link, short client, short target);
  void Read(Link& link, Way way);
  void EndOfSender(Link& link, Way way);
  void Write(Link& link, Way way);
  /// Bytes of it that may go now.
  [[nodiscard]] uint64_t Passable(const Flow& flow, Way way) const;
  [[nodiscard]] bool Stalled(Way way) const;
  void CheckArmed();

  const int listener_;
  const int wake_;
  std::array<std::atomic<uint64_t>, 2> passed_{};  // by way
  std::atomic<uint64_t> connections_ = 0;

  std::mutex mutex_;  // guards what follows
  std::condition_variable reached_changed_;
  std::list<Link> links_;
  uint16_t target_ = 0;
  Clock::duration latency_{0};
  std::optional<uint64_t> bytes_per_s_;
  std::array<double, 2> tokens_{};  // bytes that the throttle lets go now, by way
  Clock::time_point refilled_;
  std::optional<Armed> armed_;
  bool reached_ = false;
  bool stopping_ = false;

  std::thread thread_;  // last: it uses all of the above
};

}  // namespace weft::testing
