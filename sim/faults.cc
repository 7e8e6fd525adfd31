#include "sim/faults.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "common/base/str.h"
#include "common/runtime/transport.h"

namespace weft::sim {
namespace {

double Draw(RandomStream& stream, double most) { return stream.Uniform() * most; }

bool Parted(const FaultPlan& plan, const ClientId& client, bool up, Nanos now) {
  return std::any_of(plan.partitions.begin(), plan.partitions.end(), [&](const Partition& p) {
    return now >= p.begin && now < p.end && (up ? p.up : p.down) &&
           std::find(p.clients.begin(), p.clients.end(), client) != p.clients.end();
  });
}

}  // namespace

std::string FaultPlan::Text() const {
  std::string text =
      Str("faults of seed ", seed, ": messages lost ", links.loss, ", repeated ", links.repeat,
          ", reordered ", links.reorder, ", delayed ", links.tail, ", damaged ", links.flip, "\n");
  for (const Partition& partition : partitions) {
    text +=
        Str("  from ", ToSeconds(partition.begin), " s to ", ToSeconds(partition.end), " s cut off",
            partition.up && partition.down ? ":"
            : partition.up                 ? " from speaking:"
                                           : " from hearing:");
    for (const ClientId& client : partition.clients) text += " " + client.name;
    text += "\n";
  }
  for (const Crash& crash : crashes) {
    text += Str("  at ", ToSeconds(crash.at), " s ", crash.node, " dies for ",
                ToSeconds(crash.down), " s\n");
  }
  for (const ClockJump& jump : clock_jumps) {
    text += Str("  at ", ToSeconds(jump.at), " s the wall clock of ", jump.node, " jumps by ",
                jump.by_s, " s\n");
  }
  for (const DiskStall& stall : disk_stalls) {
    text += Str("  from ", ToSeconds(stall.begin), " s to ", ToSeconds(stall.end),
                " s the disk of ", stall.node, " is full\n");
  }
  for (const BitFlip& flip : bit_flips) {
    text += Str("  a file of ", flip.node, " is damaged when it is first down after ",
                ToSeconds(flip.after), " s\n");
  }
  return text;
}

FaultPlan DrawFaultPlan(uint64_t seed, std::span<const ClientId> clients,
                        const FaultBounds& bounds) {
  RandomStream stream = RandomStream::Derive(seed, {"fault-plan"});
  FaultPlan plan;
  plan.seed = seed;
  plan.links.loss = Draw(stream, bounds.loss_max);
  plan.links.repeat = Draw(stream, bounds.repeat_max);
  plan.links.reorder = Draw(stream, bounds.reorder_max);
  plan.links.hold_max = Seconds(bounds.hold_max_s);
  for (uint64_t i = stream.Below(bounds.partitions_max + 1); i > 0; --i) {
    Partition partition;
    partition.begin = Seconds(Draw(stream, bounds.span_s));
    partition.end = partition.begin + Seconds(Draw(stream, bounds.partition_max_s));
    for (const ClientId& client : clients) {
      if (stream.Below(2) == 0) partition.clients.push_back(client);
    }
    plan.partitions.push_back(std::move(partition));
  }
  const auto crash = [&](const ClientId& node) {
    plan.crashes.push_back({node, Seconds(Draw(stream, bounds.span_s)),
                            Seconds(0.1 + Draw(stream, bounds.down_max_s))});
  };
  if (!clients.empty()) {
    for (uint64_t i = stream.Below(bounds.client_crashes_max + 1); i > 0; --i) {
      crash(clients[stream.Below(clients.size())]);
    }
  }
  for (uint64_t i = stream.Below(bounds.aggregator_crashes_max + 1); i > 0; --i) {
    crash(kAggregator);
  }
  if (bounds.one_way_share > 0) {
    for (Partition& partition : plan.partitions) {
      if (stream.Uniform() >= bounds.one_way_share) continue;
      (stream.Below(2) == 0 ? partition.up : partition.down) = false;
    }
  }
  if (bounds.tail_max > 0) {
    plan.links.tail = Draw(stream, bounds.tail_max);
    plan.links.tail_median = Seconds(Draw(stream, bounds.tail_median_max_s));
  }
  const auto any_node = [&] {
    const size_t i = stream.Below(clients.size() + 1);
    return i == clients.size() ? kAggregator : clients[i];
  };
  for (uint64_t i = stream.Below(bounds.clock_jumps_max + 1); i > 0; --i) {
    plan.clock_jumps.push_back({any_node(), Seconds(Draw(stream, bounds.span_s)),
                                (2 * stream.Uniform() - 1) * bounds.clock_jump_max_s});
  }
  for (uint64_t i = stream.Below(bounds.disk_stalls_max + 1); i > 0; --i) {
    DiskStall stall{any_node(), Seconds(Draw(stream, bounds.span_s)), Nanos{0}};
    stall.end = stall.begin + Seconds(Draw(stream, bounds.disk_stall_max_s));
    plan.disk_stalls.push_back(stall);
  }
  if (bounds.flip_max > 0) plan.links.flip = Draw(stream, bounds.flip_max);
  if (bounds.flips_on_disks) {
    // One each: a state is made again from its updates, which are not to be damaged as well.
    plan.bit_flips.push_back({kAggregator, Seconds(Draw(stream, bounds.span_s))});
    for (const ClientId& client : clients) {
      plan.bit_flips.push_back({client, Seconds(Draw(stream, bounds.span_s))});
    }
  }
  std::stable_sort(plan.crashes.begin(), plan.crashes.end(),
                   [](const Crash& a, const Crash& b) { return a.at < b.at; });
  return plan;
}

Weather WeatherOf(const FaultPlan& plan, const EventQueue& queue) {
  const auto luck =
      std::make_shared<RandomStream>(RandomStream::Derive(plan.seed, {"messages' luck"}));
  return [plan, &queue, luck](const ClientId& client, bool up) {
    std::vector<Nanos> copies;
    if (Parted(plan, client, up, queue.now()) || luck->Uniform() < plan.links.loss) return copies;
    const auto copy = [&] {
      const bool held = luck->Uniform() < plan.links.reorder;
      copies.push_back(held ? Seconds(Draw(*luck, ToSeconds(plan.links.hold_max))) : Nanos{0});
      if (plan.links.tail == 0 || luck->Uniform() >= plan.links.tail) return;
      copies.back() += Seconds(ToSeconds(plan.links.tail_median) * std::exp(luck->Normal()));
    };
    copy();
    if (luck->Uniform() < plan.links.repeat) copy();
    return copies;
  };
}

Damage DamageOf(const FaultPlan& plan) {
  if (plan.links.flip == 0) return nullptr;
  const auto luck = std::make_shared<RandomStream>(RandomStream::Derive(plan.seed, {"damage"}));
  return [share = plan.links.flip, luck]() -> std::optional<uint64_t> {
    if (luck->Uniform() >= share) return std::nullopt;
    return luck->NextU64();
  };
}

}  // namespace weft::sim
