#pragma once
// Clock: the seam through which a node knows time and asks to be woken. Production: steady clock
// and the event loop; simulation: virtual time that jumps to the next event. Not thread-safe: used
// by the node's own loop.

#include <chrono>
#include <cstdint>
#include <functional>

namespace weft {

/// Time since an arbitrary start; only differences mean anything.
using Nanos = std::chrono::nanoseconds;

[[nodiscard]] inline Nanos Seconds(double seconds) {
  return std::chrono::duration_cast<Nanos>(std::chrono::duration<double>(seconds));
}
[[nodiscard]] inline double ToSeconds(Nanos time) {
  return std::chrono::duration<double>(time).count();
}

struct TimerId {
  uint64_t value = 0;  // 0: none
  friend auto operator<=>(TimerId, TimerId) = default;
};

class Clock {
 public:
  virtual ~Clock() = default;

  /// Monotone; constant within one turn of the loop, so that a handler is reproducible.
  [[nodiscard]] virtual Nanos Now() const = 0;
  /// Microseconds since the Unix epoch, for people and logs only; no decision may depend on it.
  [[nodiscard]] virtual int64_t WallMicros() const = 0;
  /// Calls `wake` once, in the loop, at or after `when`. Timers of equal time fire in the order
  /// they were set.
  virtual TimerId At(Nanos when, std::function<void()> wake) = 0;
  /// The timer will not fire; a timer that has fired or TimerId{} is ignored.
  virtual void Cancel(TimerId timer) = 0;
};

}  // namespace weft
