#pragma once
// EventQueue: virtual time. Events fire in (time, order of scheduling); time jumps from one to the
// next. Single-threaded: only the simulator's loop touches it.

#include <cstdint>
#include <functional>
#include <map>

#include "common/runtime/clock.h"

namespace weft::sim {

class EventQueue {
 public:
  [[nodiscard]] Nanos now() const { return now_; }
  [[nodiscard]] bool empty() const { return events_.empty(); }
  [[nodiscard]] uint64_t fired() const { return fired_; }

  /// Schedules an event; a time in the past fires at the present time.
  TimerId At(Nanos when, std::function<void()> event);
  void Cancel(TimerId id);

  /// Jumps to the next event and runs it; false if there is none.
  bool RunOne();

 private:
  struct Key {
    Nanos when;
    uint64_t seq;
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  std::map<Key, std::function<void()>> events_;
  std::map<uint64_t, Nanos> pending_;  // seq → when, to find an event that is to be cancelled
  Nanos now_{0};
  uint64_t next_seq_ = 1;
  uint64_t fired_ = 0;
};

/// The Clock of one node in simulation. Wall time starts at a fixed date, so logs of two runs can
/// be compared.
class SimClock : public Clock {
 public:
  explicit SimClock(EventQueue& queue) : queue_(queue) {}

  /// Sets the wall clock by that much.
  void JumpBy(double seconds) { jumped_us_ += static_cast<int64_t>(seconds * 1e6); }

  [[nodiscard]] Nanos Now() const override { return queue_.now(); }
  [[nodiscard]] int64_t WallMicros() const override;
  TimerId At(Nanos when, std::function<void()> wake) override;
  void Cancel(TimerId timer) override { queue_.Cancel(timer); }

 private:
  EventQueue& queue_;
  int64_t jumped_us_ = 0;
};

}  // namespace weft::sim
