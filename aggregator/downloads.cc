#include "aggregator/downloads.h"

#include <algorithm>
#include <utility>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/wire/message_codec.h"

namespace weft {
namespace {

// A client that is being served asks for more within moments; one that does not makes room.
constexpr Nanos kIdleAfter = std::chrono::seconds(2);
// Of clients that are served in whole and not known to have it.
constexpr uint64_t kOnItsWayMax = 8 << 20;

}  // namespace

void Downloads::Allow(const ClientId& client, Use use, const Bundle& bundle) {
  const Key key{client, use};
  const auto it = servings_.find(key);
  if (it != servings_.end() && it->second.sender.offer() == bundle.offer) return;
  Leave(key);
  servings_.erase(key);
  servings_.emplace(key, Serving{.sender = PayloadSender(bundle.offer, bundle.bytes)});
}

void Downloads::ForbidAll(Use use) {
  std::erase_if(servings_, [&](const auto& entry) { return entry.first.second == use; });
  std::erase_if(active_, [&](const auto& entry) { return entry.first.second == use; });
  std::erase_if(line_, [&](const Key& key) { return key.second == use; });
  std::erase_if(on_its_way_, [&](const auto& entry) {
    if (entry.first.second != use) return false;
    on_its_way_bytes_ -= entry.second.bytes;
    return true;
  });
  Admit();
}

Status Downloads::OnRequest(const ClientId& from, const ChunkRequest& request) {
  for (const Use use : {Use::kTrain, Use::kEvaluate}) {
    const auto it = servings_.find({from, use});
    if (it == servings_.end() || it->second.sender.offer().sha256 != request.sha256) continue;
    PayloadSender& sender = it->second.sender;
    if (!sender.Ask(request).ok()) {
      sender.Reset();  // it asks anew for what was lost on the way; the newest request counts
      WEFT_TRY(sender.Ask(request));
    }
    if (request.first + request.count == ChunkCount(sender.offer().bytes)) it->second.whole = true;
    it->second.asked_bytes =
        std::min(sender.offer().bytes, uint64_t{request.count} * limits::kChunkBytes);
    Arrived(it->first);
    if (const auto active = active_.find(it->first); active != active_.end()) {
      active->second = office_.env.clock.Now();
      Pump(it->first);
    } else if (std::find(line_.begin(), line_.end(), it->first) == line_.end()) {
      line_.push_back(it->first);
      Admit();
    }
    return OkStatus();
  }
  return NotFound(Str("[download] client ", from, " asked for payload ",
                      request.sha256.substr(0, 12), ", which is not on offer to it"));
}

void Downloads::Admit() {
  const auto at_once =
      static_cast<size_t>(std::max<int64_t>(office_.options.settings.server.uploads_at_once, 1));
  while (!line_.empty() && active_.size() < at_once && on_its_way_bytes_ < kOnItsWayMax) {
    const Key key = line_.front();
    line_.pop_front();
    active_[key] = office_.env.clock.Now();
    Pump(key);
  }
}

bool Downloads::Pump(const Key& key) {
  Serving& serving = servings_.at(key);
  const Status status = serving.sender.Pump([&](Frames frames) {
    const size_t bytes = frames.chunk.size();
    Status sent = office_.env.transport.Send(key.first, std::move(frames));
    if (sent.ok()) serving.sent_bytes += bytes;
    return sent;
  });
  if (!status.ok()) serving.sender.Reset();
  if (!serving.sender.idle()) return true;
  if (serving.whole || !status.ok()) {
    if (serving.whole && status.ok()) {
      on_its_way_[key] = {.bytes = serving.asked_bytes, .since = office_.env.clock.Now()};
      on_its_way_bytes_ += serving.asked_bytes;
    }
    serving.whole = false;
    active_.erase(key);
    Admit();
  }
  return false;
}

void Downloads::Arrived(const Key& key) {
  const auto it = on_its_way_.find(key);
  if (it == on_its_way_.end()) return;
  on_its_way_bytes_ -= it->second.bytes;
  on_its_way_.erase(it);
}

void Downloads::OnArrived(const ClientId& client) {
  for (const Use use : {Use::kTrain, Use::kEvaluate}) Arrived({client, use});
  Admit();
}

void Downloads::Leave(const Key& key) {
  active_.erase(key);
  std::erase(line_, key);
  Arrived(key);
  Admit();
}

void Downloads::Gone(const ClientId& client) {
  for (const Use use : {Use::kTrain, Use::kEvaluate}) {
    const auto it = servings_.find({client, use});
    if (it == servings_.end()) continue;
    it->second.sender.Reset();
    Leave(it->first);
  }
}

void Downloads::Tick() {
  const Nanos now = office_.env.clock.Now();
  std::vector<Key> keys;
  for (const auto& [key, since] : active_) keys.push_back(key);
  for (const Key& key : keys) {
    if (!active_.contains(key)) continue;
    const bool waiting = Pump(key);
    if (!waiting && active_.contains(key) && now - active_.at(key) > kIdleAfter) Leave(key);
  }
  keys.clear();
  for (const auto& [key, way] : on_its_way_) {
    if (now - way.since > kIdleAfter) keys.push_back(key);
  }
  for (const Key& key : keys) Arrived(key);
  Admit();
}

uint64_t Downloads::SentBytes(const ClientId& client, Use use) const {
  const auto it = servings_.find({client, use});
  return it == servings_.end() ? 0 : it->second.sent_bytes;
}

}  // namespace weft
