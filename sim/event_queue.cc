#include "sim/event_queue.h"

#include <algorithm>
#include <utility>

namespace weft::sim {
namespace {

constexpr int64_t kStartMicros = 946'684'800'000'000;  // 2000-01-01T00:00:00Z

}  // namespace

TimerId EventQueue::At(Nanos when, std::function<void()> event) {
  const Key key{std::max(when, now_), next_seq_++};
  events_.emplace(key, std::move(event));
  pending_.emplace(key.seq, key.when);
  return TimerId{key.seq};
}

void EventQueue::Cancel(TimerId id) {
  const auto it = pending_.find(id.value);
  if (it == pending_.end()) return;
  events_.erase(Key{it->second, it->first});
  pending_.erase(it);
}

bool EventQueue::RunOne() {
  if (events_.empty()) return false;
  const auto it = events_.begin();
  now_ = it->first.when;
  pending_.erase(it->first.seq);
  const std::function<void()> event = std::move(it->second);
  events_.erase(it);
  ++fired_;
  event();
  return true;
}

int64_t SimClock::WallMicros() const {
  return kStartMicros + jumped_us_ +
         std::chrono::duration_cast<std::chrono::microseconds>(queue_.now()).count();
}

TimerId SimClock::At(Nanos when, std::function<void()> wake) {
  return queue_.At(when, std::move(wake));
}

}  // namespace weft::sim
