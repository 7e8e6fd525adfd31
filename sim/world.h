#pragma once
// World: everything the nodes of one federation touch, put together for one process. Two of them:
// virtual time and a simulated network, or real time and queues. Node code cannot tell the
// difference from production.

#include <functional>
#include <memory>

#include "common/config/settings.h"
#include "common/runtime/env.h"
#include "sim/disk_bug.h"

namespace weft::sim {

class World {
 public:
  virtual ~World() = default;

  /// The Env of the aggregator (kAggregator) or of a client; made on first use, lives as long as
  /// the world.
  [[nodiscard]] virtual Env MakeEnv(const ClientId& node) = 0;
  /// The client is a member of that relay, not of the aggregator. Before its Env is made.
  virtual void Attach(const ClientId& client, const ClientId& relay) = 0;
  /// The relay's Env as the aggregator of its members; MakeEnv gives the one that it has as a
  /// client.
  [[nodiscard]] virtual Env MakeRelayEnv(const ClientId& relay) = 0;

  /// Runs events until `done` is true. kDeadlineExceeded if nothing is left to happen before that.
  [[nodiscard]] virtual Status RunUntil(const std::function<bool()>& done) = 0;

  /// The world's time since its start, in seconds.
  [[nodiscard]] virtual double Elapsed() const = 0;
};

struct WorldOptions {
  SimSettings sim;
  uint64_t seed = 1;
  size_t workers = 1;
  Nanos write_time{0};                    // of one write to a virtual disk
  DiskBug disk_bug = DiskBug::kNone;      // of every virtual disk
  const WorkTable* work = nullptr;        // for all nodes; jobs say whose they are
  std::function<void()> on_worker_start;  // on each worker thread
  std::shared_ptr<log::Sink> log_sink;
  log::Level log_level = log::Level::kWarn;
};

/// The name of a relay's other Env, MakeRelayEnv's.
[[nodiscard]] inline ClientId MembersOf(const ClientId& relay) {
  return ClientId{relay.name + "/members"};
}

/// Real time and queues; virtual_world.h has the other one.
[[nodiscard]] std::unique_ptr<World> MakeInprocWorld(WorldOptions options);

}  // namespace weft::sim
