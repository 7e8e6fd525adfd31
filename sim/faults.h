#pragma once
// FaultPlan: what goes wrong in a simulated federation and when, drawn from a seed: processes that
// die and come back, links that lose, repeat and reorder messages, partitions. Plain data; the same
// seed gives the same plan, and the same plan the same run.

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/base/ids.h"
#include "common/base/random.h"
#include "sim/event_queue.h"
#include "sim/network.h"

namespace weft::sim {

struct LinkFaults {
  double loss = 0;     // share of messages that never arrive
  double repeat = 0;   // share that arrive twice
  double reorder = 0;  // share held back, so that later ones overtake them
  Nanos hold_max{0};   // by at most this
  double flip = 0;  // share that has another bit: a chunk arrives so, anything else breaks the link
  double tail = 0;  // share delayed by a log-normal time of median tail_median, σ = 1 (p99: ×10)
  Nanos tail_median{0};
};

/// Nothing passes between the aggregator and a client, or nothing one way.
struct Partition {
  Nanos begin{0};
  Nanos end{0};
  std::vector<ClientId> clients;
  bool up = true;    // to the aggregator
  bool down = true;  // from it
};

/// A process dies without a word and is started again on what its disk holds.
struct Crash {
  ClientId node;  // kAggregator or a client
  Nanos at{0};
  Nanos down{0};
};

/// A node's wall clock is set by that much, its steady clock goes on.
struct ClockJump {
  ClientId node;
  Nanos at{0};
  double by_s = 0;
};

/// A node's disk takes nothing meanwhile; what is written waits.
struct DiskStall {
  ClientId node;
  Nanos begin{0};
  Nanos end{0};
};

/// A file of a node's disk has another bit when its process is started again.
struct BitFlip {
  ClientId node;
  Nanos after{0};  // the first restart from then on
};

struct FaultPlan {
  uint64_t seed = 1;  // of the messages' luck and of what crashes leave on disks
  LinkFaults links;
  std::vector<Partition> partitions;
  std::vector<Crash> crashes;
  std::vector<ClockJump> clock_jumps = {};
  std::vector<DiskStall> disk_stalls = {};
  std::vector<BitFlip> bit_flips = {};

  /// One line a fault, for people.
  [[nodiscard]] std::string Text() const;
};

/// Bounds of a drawn plan. The defaults lose no participant for good: everything that stops, goes
/// on before the run is over.
struct FaultBounds {
  double span_s = 60;  // of virtual time in which faults begin
  double loss_max = 0.15;
  double repeat_max = 0.15;
  double reorder_max = 0.15;
  double hold_max_s = 0.3;
  uint64_t partitions_max = 2;
  double partition_max_s = 12;
  uint64_t client_crashes_max = 4;
  uint64_t aggregator_crashes_max = 2;
  double down_max_s = 10;
  double one_way_share = 0;  // of partitions that stop one direction only
  double tail_max = 0;
  double tail_median_max_s = 1;
  uint64_t clock_jumps_max = 0;
  double clock_jump_max_s = 3600;  // either way
  uint64_t disk_stalls_max = 0;
  double disk_stall_max_s = 5;
  double flip_max = 0;
  bool flips_on_disks = false;  // one at the aggregator, one at each client
};
[[nodiscard]] FaultPlan DrawFaultPlan(uint64_t seed, std::span<const ClientId> clients,
                                      const FaultBounds& bounds = {});

/// The plan's links and partitions as a network's weather; `queue` tells it the time.
[[nodiscard]] Weather WeatherOf(const FaultPlan& plan, const EventQueue& queue);
/// Which messages of the plan's links arrive damaged; null: none.
[[nodiscard]] Damage DamageOf(const FaultPlan& plan);

}  // namespace weft::sim
