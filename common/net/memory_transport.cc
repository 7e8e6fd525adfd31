#include "common/net/memory_transport.h"

#include <atomic>

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/base/result.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr int kQueueMax = 256;  // messages under way to one end

Status CheckSizes(const ClientId& to, const Frames& frames) {
  if (frames.control.size() <= limits::kControlBytesMax &&
      frames.chunk.size() <= limits::kChunkBytes)
    return OkStatus();
  return InvalidArgument(Str("[net] to ", to, ": frames of ", frames.control.size(), " and ",
                             frames.chunk.size(), " bytes, at most ", limits::kControlBytesMax,
                             " and ", limits::kChunkBytes));
}

// One end as the other side sees it. `receiver` is used in `loop`'s thread only.
struct Box {
  ClientId name;
  EventLoop* loop = nullptr;
  Transport::Receiver* receiver = nullptr;
  std::atomic<int> under_way{0};
};
using BoxPtr = std::shared_ptr<Box>;

void TellGone(const BoxPtr& box, const ClientId& peer, const Status& why) {
  box->loop->Post([box, peer, why] {
    if (box->receiver != nullptr) box->receiver->OnPeerGone(peer, why);
  });
}

}  // namespace

// Which ends there are; locked, because ends may live in different threads.
struct MemoryHub::Switch {
  struct Link {
    BoxPtr client;
    bool known = false;  // the aggregator has heard from it and may answer
    // Counts cuts; what was sent under an earlier number is not delivered.
    std::shared_ptr<std::atomic<uint64_t>> epoch = std::make_shared<std::atomic<uint64_t>>(0);
  };

  std::mutex mutex;
  BoxPtr aggregator;
  std::map<ClientId, Link> links;
};

class MemoryHub::End : public Transport {
 public:
  End(std::shared_ptr<Switch> joined, BoxPtr box)
      : switch_(std::move(joined)), box_(std::move(box)) {}

  ~End() override {
    box_->receiver = nullptr;
    const std::scoped_lock lock(switch_->mutex);
    const Status closed = Unavailable(Str("[net] ", box_->name, ": the link was closed"));
    if (switch_->aggregator == box_) {
      switch_->aggregator.reset();
      for (auto& [name, link] : switch_->links) {
        ++*link.epoch;
        link.known = false;
        TellGone(link.client, kAggregator, closed);
      }
      return;
    }
    const auto it = switch_->links.find(box_->name);
    if (it == switch_->links.end() || it->second.client != box_) return;
    if (it->second.known && switch_->aggregator) TellGone(switch_->aggregator, box_->name, closed);
    switch_->links.erase(it);
  }

  void SetReceiver(Receiver* receiver) override { box_->receiver = receiver; }

  Status Send(const ClientId& to, Frames frames) override {
    WEFT_TRY(CheckSizes(to, frames));
    const std::scoped_lock lock(switch_->mutex);
    const bool from_aggregator = switch_->aggregator == box_;
    const auto it = switch_->links.find(from_aggregator ? to : box_->name);
    const Status no_link = Unavailable(Str("[net] no link to ", to));
    if (it == switch_->links.end()) return no_link;
    Switch::Link& link = it->second;
    const BoxPtr target = from_aggregator ? link.client : switch_->aggregator;
    if (from_aggregator && !link.known) return no_link;
    if (!from_aggregator && (link.client != box_ || to != kAggregator || !target)) return no_link;
    if (target->under_way >= kQueueMax)
      return ResourceExhausted(Str("[net] the queue to ", to, " is full"));
    if (!from_aggregator) link.known = true;
    ++target->under_way;
    target->loop->Post([target, from = box_->name, epoch = link.epoch, sent_at = link.epoch->load(),
                        message = std::move(frames)]() mutable {
      --target->under_way;
      if (epoch->load() != sent_at || target->receiver == nullptr) return;
      target->receiver->OnFrames(from, std::move(message));
    });
    return OkStatus();
  }

  void Cut(const ClientId& peer, const Status& why) override {
    const std::scoped_lock lock(switch_->mutex);
    const bool from_aggregator = switch_->aggregator == box_;
    const auto it = switch_->links.find(from_aggregator ? peer : box_->name);
    if (it == switch_->links.end()) return;
    Switch::Link& link = it->second;
    const bool was_known = link.known;
    link.known = false;
    ++*link.epoch;
    if (from_aggregator) {
      if (was_known) TellGone(link.client, kAggregator, why);
      return;
    }
    if (was_known && switch_->aggregator) TellGone(switch_->aggregator, box_->name, why);
    switch_->links.erase(it);
  }

 private:
  std::shared_ptr<Switch> switch_;
  BoxPtr box_;
};

MemoryHub::MemoryHub() : switch_(std::make_shared<Switch>()) {}
MemoryHub::~MemoryHub() = default;

std::unique_ptr<Transport> MemoryHub::MakeAggregator(EventLoop& loop) {
  const auto box = std::make_shared<Box>();
  box->name = kAggregator;
  box->loop = &loop;
  const std::scoped_lock lock(switch_->mutex);
  WEFT_CHECK(switch_->aggregator == nullptr, "a hub has one aggregator");
  switch_->aggregator = box;
  return std::make_unique<End>(switch_, box);
}

std::unique_ptr<Transport> MemoryHub::MakeClient(EventLoop& loop, const ClientId& name) {
  const auto box = std::make_shared<Box>();
  box->name = name;
  box->loop = &loop;
  const std::scoped_lock lock(switch_->mutex);
  const auto older = switch_->links.find(name);
  if (older != switch_->links.end()) {
    const Status replaced = Unavailable(Str("[net] ", name, ": a newer connection took its place"));
    ++*older->second.epoch;
    TellGone(older->second.client, kAggregator, replaced);
    if (older->second.known && switch_->aggregator) TellGone(switch_->aggregator, name, replaced);
    switch_->links.erase(older);
  }
  switch_->links[name].client = box;
  return std::make_unique<End>(switch_, box);
}

}  // namespace weft
