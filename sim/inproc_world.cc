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
    std::unique_ptr<Parts>& parts = parts_[node];
    if (parts == nullptr) parts = std::make_unique<Parts>(*this, node);
    return {loop_, *parts->transport, executor_, parts->store, parts->entropy, parts->log};
  }

  Status RunUntil(const std::function<bool()>& done) override {
    loop_.RunUntil(done);
    return OkStatus();
  }

  double Elapsed() const override { return ToSeconds(loop_.Now() - start_); }

 private:
  struct Parts {
    Parts(InprocWorld& world, const ClientId& node)
        : transport(node == kAggregator ? world.hub_.MakeAggregator(world.loop_)
                                        : world.hub_.MakeClient(world.loop_, node)),
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

  const WorldOptions options_;
  EventLoop loop_;
  Nanos start_;
  MemoryHub hub_;
  std::map<ClientId, std::unique_ptr<Parts>> parts_;
  ThreadExecutor executor_;  // destroyed first: no result may arrive afterwards
};

}  // namespace

std::unique_ptr<World> MakeInprocWorld(WorldOptions options) {
  return std::make_unique<InprocWorld>(std::move(options));
}

}  // namespace weft::sim
