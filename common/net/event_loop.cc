#include "common/net/event_loop.h"

#include <algorithm>
#include <cerrno>

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/base/check.h"

namespace weft {
namespace {

constexpr int kBudget = 64;  // messages of one source in one turn

Nanos SteadyNow() {
  return std::chrono::duration_cast<Nanos>(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

struct EventLoop::Mailbox {
  Mailbox() : fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    WEFT_CHECK(fd >= 0, "eventfd: ", errno);
  }
  ~Mailbox() { close(fd); }

  int fd;
  std::mutex mutex;
  std::vector<std::function<void()>> posted;
};

EventLoop::EventLoop() : now_(SteadyNow()), mailbox_(std::make_unique<Mailbox>()) {}
EventLoop::~EventLoop() = default;

int64_t EventLoop::WallMicros() const {
  return std::chrono::duration_cast<std::chrono::microseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

TimerId EventLoop::At(Nanos when, std::function<void()> wake) {
  const uint64_t id = next_timer_++;
  timers_.emplace(TimerKey{when, id}, std::move(wake));
  timer_times_.emplace(id, when);
  return TimerId{id};
}

void EventLoop::Cancel(TimerId timer) {
  const auto it = timer_times_.find(timer.value);
  if (it == timer_times_.end()) return;
  timers_.erase(TimerKey{it->second, timer.value});
  timer_times_.erase(it);
}

void EventLoop::Post(std::function<void()> callback) {
  {
    const std::scoped_lock lock(mailbox_->mutex);
    mailbox_->posted.push_back(std::move(callback));
  }
  const uint64_t one = 1;
  // The counter can only be full if the loop is already due to wake.
  [[maybe_unused]] const ssize_t written = write(mailbox_->fd, &one, sizeof(one));
}

void EventLoop::Add(EventSource* source) { sources_.push_back(source); }

void EventLoop::Remove(EventSource* source) {
  std::replace(sources_.begin(), sources_.end(), source, static_cast<EventSource*>(nullptr));
  if (!serving_) std::erase(sources_, nullptr);
}

void EventLoop::RunPosted() {
  std::vector<std::function<void()>> posted;
  {
    const std::scoped_lock lock(mailbox_->mutex);
    posted.swap(mailbox_->posted);
  }
  for (const auto& callback : posted) callback();
}

void EventLoop::RunTimers() {
  // Timers set by these callbacks wait for the next turn even if already due.
  const uint64_t first_new = next_timer_;
  auto it = timers_.begin();
  while (it != timers_.end() && it->first.first <= now_) {
    if (it->first.second >= first_new) {
      ++it;
      continue;
    }
    const std::function<void()> wake = std::move(it->second);
    timer_times_.erase(it->first.second);
    timers_.erase(it);
    wake();
    it = timers_.begin();
  }
}

void EventLoop::RunSources() {
  serving_ = true;
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (sources_[i] != nullptr) sources_[i]->Run(kBudget);
  }
  serving_ = false;
  std::erase(sources_, nullptr);
}

Nanos EventLoop::WaitTime(Nanos wait_max) {
  for (EventSource* source : sources_) {
    if (source->Pending()) return Nanos(0);
  }
  {
    const std::scoped_lock lock(mailbox_->mutex);
    if (!mailbox_->posted.empty()) return Nanos(0);
  }
  if (timers_.empty()) return wait_max;
  return std::clamp(timers_.begin()->first.first - SteadyNow(), Nanos(0), wait_max);
}

void EventLoop::Wait(Nanos wait_max) {
  std::vector<pollfd> fds{{mailbox_->fd, POLLIN, 0}};
  for (const EventSource* source : sources_) {
    if (source->Fd() >= 0) fds.push_back({source->Fd(), POLLIN, 0});
  }
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(wait_max);
  const timespec timeout{static_cast<time_t>(seconds.count()),
                         static_cast<long>((wait_max - seconds).count())};
  const int ready = ppoll(fds.data(), fds.size(), &timeout, nullptr);
  WEFT_CHECK(ready >= 0 || errno == EINTR, "poll: ", errno);
  if (ready > 0 && (fds[0].revents & POLLIN) != 0) {
    uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(mailbox_->fd, &count, sizeof(count));
  }
}

void EventLoop::RunOnce(Nanos wait_max) {
  Wait(WaitTime(wait_max));
  now_ = SteadyNow();
  RunPosted();
  RunTimers();
  RunSources();
}

void EventLoop::RunUntil(const std::function<bool()>& done) {
  constexpr Nanos kLongWait = std::chrono::hours(1);
  while (!done()) RunOnce(kLongWait);
}

}  // namespace weft
