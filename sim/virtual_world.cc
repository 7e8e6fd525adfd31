#include "sim/virtual_world.h"

#include <utility>

#include "common/base/check.h"

namespace weft::sim {
namespace {

constexpr double kBytesPerMegabit = 1e6 / 8;

/// A process's life: what it asked the world for comes back only while it lasts.
class Life {
 public:
  void End() { alive_ = std::make_shared<bool>(true); }

  template <typename Callback>
  [[nodiscard]] auto Guard(Callback callback) const {
    return [callback = std::move(callback), alive = std::weak_ptr<bool>(alive_)](auto&&... args) {
      if (!alive.expired()) callback(std::forward<decltype(args)>(args)...);
    };
  }

 private:
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class LivingClock : public SimClock {
 public:
  LivingClock(EventQueue& queue, const Life& life) : SimClock(queue), life_(life) {}
  TimerId At(Nanos when, std::function<void()> wake) override {
    return SimClock::At(when, life_.Guard(std::move(wake)));
  }

 private:
  const Life& life_;
};

class LivingExecutor : public SimExecutor {
 public:
  LivingExecutor(EventQueue& queue, WorkerPool& pool, const WorkTable& table, const Life& life)
      : SimExecutor(queue, pool, table), life_(life) {}
  void SubmitAny(std::any job, Nanos modelled_cost, std::shared_ptr<JobControl> control,
                 std::function<void(std::any)> done) override {
    SimExecutor::SubmitAny(std::move(job), modelled_cost, std::move(control),
                           life_.Guard(std::move(done)));
  }

 private:
  const Life& life_;
};

LinkProfile LinksOf(const SimSettings& sim) {
  return {.latency = Seconds(sim.latency_ms / 1000),
          .bytes_per_s = sim.bandwidth_mbps * kBytesPerMegabit};
}

}  // namespace

/// What a node has of its own. Its disk outlives its lives.
struct VirtualWorld::Process {
  Process(VirtualWorld& world, const ClientId& node)
      : clock(world.queue_, life),
        executor(world.queue_, world.pool_, *world.options_.work, life),
        disk({.queue = world.queue_,
              .wall_us = [this] { return clock.WallMicros(); },
              .write_time = world.options_.write_time,
              .seed = RandomStream::Derive(world.options_.seed, {"disk", node.name}).key(),
              .bug = world.options_.disk_bug}),
        entropy(RandomStream::Derive(world.options_.seed, {"entropy", node.name})),
        log(
            node.name, world.options_.log_sink, [this] { return clock.WallMicros(); },
            world.options_.log_level) {}

  Life life;
  LivingClock clock;
  LivingExecutor executor;
  SimDisk disk;
  RandomStream entropy;
  log::Logger log;
};

VirtualWorld::VirtualWorld(WorldOptions options)
    : options_(std::move(options)),
      network_(queue_, LinksOf(options_.sim)),
      pool_(options_.workers, options_.on_worker_start) {}

VirtualWorld::~VirtualWorld() = default;

VirtualWorld::Process& VirtualWorld::ProcessOf(const ClientId& name) {
  std::unique_ptr<Process>& process = processes_[name];
  if (process == nullptr) process = std::make_unique<Process>(*this, name);
  return *process;
}

SimNetwork& VirtualWorld::StarOf(const ClientId& client) {
  const auto relay = relay_of_.find(client);
  return relay == relay_of_.end() ? network_ : *stars_.at(relay->second);
}

Env VirtualWorld::MakeEnv(const ClientId& node) {
  Process& own = ProcessOf(node);
  Transport& transport =
      node == kAggregator ? network_.AggregatorEnd() : StarOf(node).ClientEnd(node);
  return {own.clock, transport, own.executor, own.disk, own.entropy, own.log};
}

void VirtualWorld::Attach(const ClientId& client, const ClientId& relay) {
  relay_of_[client] = relay;
  std::unique_ptr<SimNetwork>& star = stars_[relay];
  if (star == nullptr) star = std::make_unique<SimNetwork>(queue_, LinksOf(options_.sim));
}

Env VirtualWorld::MakeRelayEnv(const ClientId& relay) {
  Process& own = ProcessOf(MembersOf(relay));
  return {own.clock, stars_.at(relay)->AggregatorEnd(), own.executor, own.disk, own.entropy,
          own.log};
}

Status VirtualWorld::RunUntil(const std::function<bool()>& done) {
  while (!done()) {
    if (!queue_.RunOne()) {
      return DeadlineExceeded("[sim] nothing is left to happen, and the federation has not ended");
    }
  }
  return OkStatus();
}

void VirtualWorld::KillProcess(const ClientId& name) {
  const auto process = processes_.find(name);
  if (process == processes_.end()) return;  // a relay that had nothing to offer yet
  process->second->life.End();
  process->second->disk.Crash();
}

void VirtualWorld::Kill(const ClientId& node) {
  KillProcess(node);
  StarOf(node).Drop(node);
  const auto star = stars_.find(node);
  if (star == stars_.end()) return;
  KillProcess(MembersOf(node));
  star->second->Drop(kAggregator);
}

void VirtualWorld::JumpClock(const ClientId& node, double seconds) {
  ProcessOf(node).clock.JumpBy(seconds);
  if (stars_.contains(node)) ProcessOf(MembersOf(node)).clock.JumpBy(seconds);
}

void VirtualWorld::StallDisk(const ClientId& node, Nanos end) {
  ProcessOf(node).disk.StallUntil(end);
  if (stars_.contains(node)) ProcessOf(MembersOf(node)).disk.StallUntil(end);
}

std::string VirtualWorld::FlipABit(const ClientId& node) {
  return ProcessOf(stars_.contains(node) ? MembersOf(node) : node).disk.FlipABit();
}

const Store& VirtualWorld::disk(const ClientId& node) const {
  const auto it = processes_.find(node);
  WEFT_CHECK(it != processes_.end(), "no node ", node);
  return it->second->disk;
}

}  // namespace weft::sim
