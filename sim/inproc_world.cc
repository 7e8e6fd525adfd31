#include <map>
#include <utility>

#include "common/net/event_loop.h"
#include "common/net/memory_transport.h"
#include "common/net/thread_executor.h"
#include "common/runtime/memory_store.h"
#include "sim/world.h"

namespace weft::sim {
namespace {

class InprocWorld : public World {
 public:
  explicit InprocWorld(WorldOptions options)
      : options_(std::move(options)),
        start_(loop_.Now()),
        executor_(loop_, *options_.work, options_.workers, options_.on_worker_start) {}

  Env MakeEnv(const ClientId& node) override {
    const auto relay = relay_of_.find(node);
    return EnvOf(node, node, relay == relay_of_.end() ? hub_ : hubs_[relay->second]);
  }
  void Attach(const ClientId& client, const ClientId& relay) override { relay_of_[client] = relay; }
  Env MakeRelayEnv(const ClientId& relay) override {
    return EnvOf(MembersOf(relay), kAggregator, hubs_[relay]);
  }

  Status RunUntil(const std::function<bool()>& done) override {
    loop_.RunUntil(done);
    return OkStatus();
  }

  double Elapsed() const override { return ToSeconds(loop_.Now() - start_); }

 private:
  struct Parts {
    Parts(InprocWorld& world, const ClientId& node, const ClientId& end, MemoryHub& hub)
        : transport(end == kAggregator ? hub.MakeAggregator(world.loop_)
                                       : hub.MakeClient(world.loop_, end)),
          store({.post = [&loop = world.loop_](
                             std::function<void()> callback) { loop.Post(std::move(callback)); },
                 .wall_us = [&loop = world.loop_] { return loop.WallMicros(); },
                 .fault = {}}),
          entropy(RandomStream::Derive(world.options_.seed, {"entropy", node.name})),
          log(
              node.name, world.options_.log_sink,
              [&loop = world.loop_] { return loop.WallMicros(); }, world.options_.log_level) {}
    std::unique_ptr<Transport> transport;
    MemoryStore store;
    RandomStream entropy;
    log::Logger log;
  };

  // The Env of that name, whose transport is an end of the hub.
  Env EnvOf(const ClientId& node, const ClientId& end, MemoryHub& hub) {
    std::unique_ptr<Parts>& parts = parts_[node];
    if (parts == nullptr) parts = std::make_unique<Parts>(*this, node, end, hub);
    return {loop_, *parts->transport, executor_, parts->store, parts->entropy, parts->log};
  }

  const WorldOptions options_;
  EventLoop loop_;
  Nanos start_;
  MemoryHub hub_;
  std::map<ClientId, MemoryHub> hubs_;  // of relays
  std::map<ClientId, ClientId> relay_of_;
  std::map<ClientId, std::unique_ptr<Parts>> parts_;
  ThreadExecutor executor_;  // destroyed first: no result may arrive afterwards
};

}  // namespace

std::unique_ptr<World> MakeInprocWorld(WorldOptions options) {
  return std::make_unique<InprocWorld>(std::move(options));
}

}  // namespace weft::sim
