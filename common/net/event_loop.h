#pragma once
// EventLoop: the production loop of one thread and its clock. Each turn fixes Now(), runs what
// other threads posted, timers that are due, then each source within a budget, so that a flood of
// messages never starves a timer. Only Post() and Wake() may be called from other threads.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "common/runtime/clock.h"

namespace weft {

/// Something the loop serves: a socket with a file descriptor that becomes readable when there may
/// be work.
class EventSource {
 public:
  virtual ~EventSource() = default;
  /// Readable when Run may have work; −1: only Pending() counts.
  [[nodiscard]] virtual int Fd() const = 0;
  /// True if there is work now, whatever the descriptor says (ZeroMQ's is edge-triggered).
  [[nodiscard]] virtual bool Pending() = 0;
  /// Does at most `budget` pieces of work.
  virtual void Run(int budget) = 0;
};

class EventLoop : public Clock {
 public:
  EventLoop();
  ~EventLoop() override;
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  [[nodiscard]] Nanos Now() const override { return now_; }
  [[nodiscard]] int64_t WallMicros() const override;
  TimerId At(Nanos when, std::function<void()> wake) override;
  void Cancel(TimerId timer) override;

  /// From any thread: `callback` runs in the loop, in the order posted.
  void Post(std::function<void()> callback);

  /// The loop borrows the source until it is removed; from the loop's thread, also from within a
  /// callback.
  void Add(EventSource* source);
  void Remove(EventSource* source);

  /// Turns until `done` returns true; it is asked once per turn.
  void RunUntil(const std::function<bool()>& done);
  /// One turn; waits at most `wait_max` for something to happen.
  void RunOnce(Nanos wait_max);

 private:
  struct Mailbox;
  using TimerKey = std::pair<Nanos, uint64_t>;

  void RunPosted();
  void RunTimers();
  void RunSources();
  [[nodiscard]] Nanos WaitTime(Nanos wait_max);
  void Wait(Nanos wait_max);

  Nanos now_{0};
  uint64_t next_timer_ = 1;
  std::map<TimerKey, std::function<void()>> timers_;
  std::map<uint64_t, Nanos> timer_times_;
  std::vector<EventSource*>
      sources_;  // one removed while they are served is null until the turn ends
  bool serving_ = false;
  std::unique_ptr<Mailbox> mailbox_;
};

}  // namespace weft
