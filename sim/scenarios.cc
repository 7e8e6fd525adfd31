#include "sim/scenarios.h"

#include <array>
#include <string>

#include "common/base/str.h"

namespace weft::sim {
namespace {

// Of virtual time: an undisturbed run takes about that long.
constexpr double kSpan_s = 12;

constexpr FaultBounds kNothing = {.span_s = kSpan_s,
                                  .loss_max = 0,
                                  .repeat_max = 0,
                                  .reorder_max = 0,
                                  .hold_max_s = 0,
                                  .partitions_max = 0,
                                  .client_crashes_max = 0,
                                  .aggregator_crashes_max = 0};
constexpr FaultBounds kUsual = {.span_s = kSpan_s};

constexpr FaultBounds Crashes() {
  FaultBounds bounds = kNothing;
  bounds.client_crashes_max = 6;
  bounds.aggregator_crashes_max = 4;
  return bounds;
}

constexpr FaultBounds Links() {
  FaultBounds bounds = kNothing;
  bounds.loss_max = 0.3;
  bounds.repeat_max = 0.1;
  bounds.reorder_max = 0.3;
  bounds.hold_max_s = 1;
  bounds.tail_max = 0.1;
  bounds.tail_median_max_s = 2;
  return bounds;
}

constexpr FaultBounds Partitions() {
  FaultBounds bounds = kNothing;
  bounds.partitions_max = 5;
  bounds.partition_max_s = 20;
  bounds.one_way_share = 0.5;
  return bounds;
}

constexpr FaultBounds Disks() {
  FaultBounds bounds = Crashes();
  bounds.disk_stalls_max = 4;
  bounds.disk_stall_max_s = 8;
  return bounds;
}

constexpr FaultBounds Everything() {
  FaultBounds bounds = kUsual;
  bounds.one_way_share = 0.3;
  bounds.tail_max = 0.05;
  bounds.disk_stalls_max = 2;
  bounds.clock_jumps_max = 2;
  return bounds;
}

constexpr FaultBounds Damaged() {
  FaultBounds bounds = Everything();
  bounds.client_crashes_max = 6;
  bounds.aggregator_crashes_max = 4;
  bounds.flip_max = 0.05;
  bounds.flips_on_disks = true;
  return bounds;
}

constexpr FaultBounds Clocks() {
  FaultBounds bounds = Crashes();
  bounds.clock_jumps_max = 6;
  return bounds;
}

void Flora(Settings& s) { s.strategy.name = "flora"; }

void Deltas(Settings& s) {
  s.strategy.name = "fedavg";
  s.sim.ranks = {4};
  s.train.keep_optimizer = true;
  s.wire.codec = "int8";
  s.wire.delta = true;
  s.wire.top_k = 0.3;
}

void Relays(Settings& s) {
  s.sim.clients = 5;
  s.sim.relays = 2;
}

void Hostile(Settings& s) {
  s.sim.clients = 6;
  s.sim.attack = "sign-flip";
  s.sim.attackers = 1;
  s.strategy.robust.rule = "multi-krum";
  s.strategy.robust.byzantine = 1;
}

void Refused(Settings& s) {
  s.sim.attack = "rank-inflation";
  s.sim.attackers = 1;
  s.cohort.quorum = 0.5;
}

void Quorum(Settings& s) {
  s.cohort.min_available_nodes = 3;
  s.cohort.quorum = 0.5;
  s.cohort.grace_s = 10;
  s.sim.step_cost_spread = 1;
}

void Late(Settings& s) {
  s.cohort.min_available_nodes = 3;
  s.sim.clients = 6;
  s.run.num_server_rounds = 5;
  s.cohort.buffer = 2;
  s.cohort.max_staleness = 3;
  s.cohort.fraction_train = 0.8;
  s.sim.step_cost_spread = 1;
}

void Momentum(Settings& s) {
  s.strategy.optimizer.name = "momentum";
  s.strategy.optimizer.beta1 = 0.5;
  s.run.keep_updates = true;
}

const std::array kScenarios = {
    Scenario{"crashes", "processes die and come back", nullptr, Crashes()},
    Scenario{"links", "messages are lost, repeated, reordered and very late", nullptr, Links()},
    Scenario{"partitions", "clients are cut off, both ways or one", nullptr, Partitions()},
    Scenario{"disks", "slow and full disks, writes torn and lost when processes die", nullptr,
             Disks(), std::chrono::milliseconds(40)},
    Scenario{"clocks", "wall clocks jump by up to an hour while processes die", nullptr, Clocks()},
    Scenario{"everything", "all of that", nullptr, Everything()},
    Scenario{"stacks", "all of that under flora", Flora, Everything()},
    Scenario{"deltas", "all of that with int8 deltas, top-k and kept moments", Deltas,
             Everything()},
    Scenario{"momentum", "all of that with a server's momentum", Momentum, Everything()},
    Scenario{"hostile", "all of that with an attacker and multi-krum", Hostile, Everything()},
    Scenario{"refused", "all of that with a client whose updates are refused", Refused,
             Everything(), std::chrono::milliseconds(2), /*same_bits=*/false},
    Scenario{"quorum", "all of that, a client gone for good, and rounds that close at a quorum",
             Quorum, Everything(), std::chrono::milliseconds(2), /*same_bits=*/false,
             /*lost_clients=*/1},
    Scenario{"damage", "all of that with bits that flip on disks and on the way", nullptr,
             Damaged()},
    Scenario{"damaged-deltas", "the same with int8 deltas, top-k and kept moments", Deltas,
             Damaged()},
    Scenario{"relays", "all of that, and flipped bits, in a tree of two relays", Relays, Damaged()},
    Scenario{"late", "all of that with rounds that do not wait", Late, Everything(),
             std::chrono::milliseconds(2), /*same_bits=*/false},
};

}  // namespace

std::span<const Scenario> Scenarios() { return kScenarios; }

Result<const Scenario*> FindScenario(std::string_view name) {
  std::string known;
  for (const Scenario& scenario : kScenarios) {
    if (scenario.name == name) return &scenario;
    known += Str(known.empty() ? "" : ", ", scenario.name);
  }
  return NotFound(Str("[torture] no scenario is called \"", name, "\"; known: ", known));
}

}  // namespace weft::sim
