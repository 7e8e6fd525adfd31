#include "sim/network.h"

#include <algorithm>
#include <utility>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft::sim {

class SimNetwork::End : public Transport {
 public:
  End(SimNetwork& network, ClientId name) : network_(network), name_(std::move(name)) {}

  void SetReceiver(Receiver* receiver) override { receiver_ = receiver; }
  Status Send(const ClientId& to, Frames frames) override {
    return network_.Carry(name_, to, std::move(frames));
  }
  void Cut(const ClientId& peer, const Status& why) override { network_.CutLink(name_, peer, why); }

  [[nodiscard]] Receiver* receiver() const { return receiver_; }

 private:
  SimNetwork& network_;
  ClientId name_;
  Receiver* receiver_ = nullptr;
};

SimNetwork::SimNetwork(EventQueue& queue, LinkProfile profile)
    : queue_(queue), profile_(profile), aggregator_(std::make_unique<End>(*this, kAggregator)) {}

SimNetwork::~SimNetwork() = default;

Transport& SimNetwork::AggregatorEnd() { return *aggregator_; }

Transport& SimNetwork::ClientEnd(const ClientId& client) {
  std::unique_ptr<End>& end = clients_[client];
  if (end == nullptr) end = std::make_unique<End>(*this, client);
  return *end;
}

SimNetwork::End* SimNetwork::FindEnd(const ClientId& name) const {
  if (name == kAggregator) return aggregator_.get();
  const auto it = clients_.find(name);
  return it == clients_.end() ? nullptr : it->second.get();
}

Nanos SimNetwork::ArrivalTime(Nanos& free_at, size_t bytes) const {
  const Nanos start = std::max(free_at, queue_.now());
  const double seconds =
      profile_.bytes_per_s > 0 ? static_cast<double>(bytes) / profile_.bytes_per_s : 0;
  free_at = start + Seconds(seconds);
  return free_at + profile_.latency;
}

Status SimNetwork::Carry(const ClientId& from, const ClientId& to, Frames frames) {
  if (frames.control.size() > limits::kControlBytesMax ||
      frames.chunk.size() > limits::kFrameBytesMax) {
    return InvalidArgument(Str("[network] message to ", to, " has ", frames.control.size(), " + ",
                               frames.chunk.size(), " bytes, over the limits of one frame"));
  }
  if (FindEnd(to) == nullptr) return Unavailable(Str("[network] no peer ", to));
  const bool upward = to == kAggregator;
  Link& link = links_[upward ? from : to];
  const size_t bytes = frames.control.size() + frames.chunk.size();
  bytes_carried_ += bytes;
  const Nanos arrival = ArrivalTime(upward ? link.up_free : link.down_free, bytes);
  if (tap_) tap_(from, to, frames);
  if (const std::optional<uint64_t> bit = damage_ ? damage_() : std::nullopt) {
    if (!Harm(from, to, *bit, frames)) return OkStatus();
  }
  if (!weather_) {
    Deliver(from, to, std::move(frames), arrival);
    return OkStatus();
  }
  for (const Nanos delay : weather_(upward ? from : to, upward)) {
    Deliver(from, to, frames, arrival + delay);
  }
  return OkStatus();
}

bool SimNetwork::Harm(const ClientId& from, const ClientId& to, uint64_t bit, Frames& frames) {
  if (frames.chunk.empty()) {
    const Status why = Unavailable("[network] a damaged message: the link broke");
    CutLink(from, to, why);
    CutLink(to, from, why);
    return false;
  }
  std::string bytes(frames.chunk.view());
  const uint64_t at = bit % (bytes.size() * 8);
  bytes[at / 8] = static_cast<char>(bytes[at / 8] ^ (1 << (at % 8)));
  frames.chunk = Blob::Adopt(std::move(bytes));
  return true;
}

void SimNetwork::Deliver(const ClientId& from, const ClientId& to, Frames frames, Nanos arrival) {
  const uint64_t epoch = links_[to == kAggregator ? from : to].epoch;
  queue_.At(arrival, [this, from, to, epoch, frames = std::move(frames)] {
    if (links_[to == kAggregator ? from : to].epoch != epoch) return;
    End* end = FindEnd(to);
    if (end != nullptr && end->receiver() != nullptr) end->receiver()->OnFrames(from, frames);
  });
}

void SimNetwork::Drop(const ClientId& node) {
  if (End* end = FindEnd(node)) end->SetReceiver(nullptr);
  const Status why = Unavailable(Str("[network] the link to ", node, " broke"));
  if (node != kAggregator) return CutLink(node, kAggregator, why);
  for (const auto& [client, end] : clients_) CutLink(node, client, why);
}

void SimNetwork::CutLink(const ClientId& by, const ClientId& peer, const Status& why) {
  Link& link = links_[by == kAggregator ? peer : by];
  ++link.epoch;
  queue_.At(queue_.now() + profile_.latency, [this, by, peer, why] {
    End* end = FindEnd(peer);
    if (end != nullptr && end->receiver() != nullptr) end->receiver()->OnPeerGone(by, why);
  });
}

}  // namespace weft::sim
