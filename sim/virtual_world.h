#pragma once
// VirtualWorld: virtual time and a simulated network, in which processes can die and come back.
// Single-threaded but for the workers.

#include <functional>
#include <map>
#include <memory>

#include "sim/disk.h"
#include "sim/executor.h"
#include "sim/network.h"
#include "sim/world.h"

namespace weft::sim {

class VirtualWorld : public World {
 public:
  explicit VirtualWorld(WorldOptions options);
  ~VirtualWorld() override;

  Env MakeEnv(const ClientId& node) override;
  void Attach(const ClientId& client, const ClientId& relay) override;
  Env MakeRelayEnv(const ClientId& relay) override;
  Status RunUntil(const std::function<bool()>& done) override;
  double Elapsed() const override { return ToSeconds(queue_.now()); }

  /// Runs `event` at that time of the world.
  void At(Nanos when, std::function<void()> event) { queue_.At(when, std::move(event)); }

  /// The node's process is gone from one moment to the next: its timers, jobs and writes come back
  /// to nobody, its disk keeps what SimDisk says, its links break. The caller destroys the node
  /// first; its next life begins with the Env it already has. A relay is both of its Envs.
  void Kill(const ClientId& node);

  /// The node's wall clock is set by that much.
  void JumpClock(const ClientId& node, double seconds);
  /// The node's disk takes nothing before that time.
  void StallDisk(const ClientId& node, Nanos end);

  /// See SimDisk::FlipABit; the node is down.
  std::string FlipABit(const ClientId& node);

  [[nodiscard]] const EventQueue& queue() const { return queue_; }
  /// The aggregator's star.
  [[nodiscard]] SimNetwork& network() { return network_; }
  /// Those of the relays and their members, by the relay's name.
  [[nodiscard]] std::map<ClientId, std::unique_ptr<SimNetwork>>& stars() { return stars_; }
  /// What lies on a node's disk; the node's Env was made before.
  [[nodiscard]] const Store& disk(const ClientId& node) const;

 private:
  struct Process;
  [[nodiscard]] Process& ProcessOf(const ClientId& name);
  [[nodiscard]] SimNetwork& StarOf(const ClientId& client);
  void KillProcess(const ClientId& name);

  const WorldOptions options_;
  EventQueue queue_;
  SimNetwork network_;
  std::map<ClientId, std::unique_ptr<SimNetwork>> stars_;
  std::map<ClientId, ClientId> relay_of_;
  std::map<ClientId, std::unique_ptr<Process>> processes_;
  WorkerPool pool_;  // destroyed first: its work reads disks
};

}  // namespace weft::sim
