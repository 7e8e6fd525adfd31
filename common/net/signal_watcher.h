#pragma once
// SignalWatcher: SIGTERM and SIGINT as callbacks in the loop. Made at the start of main, before any
// thread, because it blocks both signals for the process; one per process.

#include <functional>

#include "common/net/event_loop.h"

namespace weft {

class SignalWatcher : public EventSource {
 public:
  /// `on_signal` gets the signal's number, in the loop.
  SignalWatcher(EventLoop& loop, std::function<void(int)> on_signal);
  ~SignalWatcher() override;
  SignalWatcher(const SignalWatcher&) = delete;
  SignalWatcher& operator=(const SignalWatcher&) = delete;

  [[nodiscard]] int Fd() const override { return fd_; }
  [[nodiscard]] bool Pending() override { return false; }
  void Run(int budget) override;

 private:
  EventLoop& loop_;
  std::function<void(int)> on_signal_;
  int fd_;
};

}  // namespace weft
