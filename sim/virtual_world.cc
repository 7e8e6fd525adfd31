#include <map>
#include <utility>

#include "common/runtime/memory_store.h"
#include "sim/event_queue.h"
#include "sim/executor.h"
#include "sim/network.h"
#include "sim/world.h"

namespace weft::sim {
namespace {

constexpr double kBytesPerMegabit = 1e6 / 8;

class VirtualWorld : public World {
 public:
  explicit VirtualWorld(WorldOptions options)
      : options_(std::move(options)),
        clock_(queue_),
        network_(queue_, {.latency = Seconds(options_.sim.latency_ms / 1000),
                          .bytes_per_s = options_.sim.bandwidth_mbps * kBytesPerMegabit}),
        pool_(options_.workers, options_.on_worker_start),
        executor_(queue_, pool_, *options_.work) {}

  Env MakeEnv(const ClientId& node) override {
    std::unique_ptr<Parts>& parts = parts_[node];
    if (parts == nullptr) parts = std::make_unique<Parts>(*this, node);
    Transport& transport =
        node == kAggregator ? network_.AggregatorEnd() : network_.ClientEnd(node);
    return {clock_, transport, executor_, parts->store, parts->entropy, parts->log};
  }

  Status RunUntil(const std::function<bool()>& done) override {
    while (!done()) {
      if (!queue_.RunOne()) {
        return DeadlineExceeded(
            "[sim] nothing is left to happen, and the federation has not ended");
      }
    }
    return OkStatus();
  }

  double Elapsed() const override { return ToSeconds(queue_.now()); }

 private:
  struct Parts {
    Parts(VirtualWorld& world, const ClientId& node)
        : store({.post =
                     [&queue = world.queue_](std::function<void()> callback) {
                       queue.At(queue.now(), std::move(callback));
                     },
                 .wall_us = [&clock = world.clock_] { return clock.WallMicros(); },
                 .fault = {}}),
          entropy(RandomStream::Derive(world.options_.seed, {"entropy", node.name})),
          log(
              node.name, world.options_.log_sink,
              [&clock = world.clock_] { return clock.WallMicros(); }, world.options_.log_level) {}
    MemoryStore store;
    RandomStream entropy;
    log::Logger log;
  };

  const WorldOptions options_;
  EventQueue queue_;
  SimClock clock_;
  SimNetwork network_;
  WorkerPool pool_;
  SimExecutor executor_;
  std::map<ClientId, std::unique_ptr<Parts>> parts_;
};

}  // namespace

std::unique_ptr<World> MakeVirtualWorld(WorldOptions options) {
  return std::make_unique<VirtualWorld>(std::move(options));
}

}  // namespace weft::sim
