#pragma once
// A whole federation in one process: the same nodes, frames, jobs and ledger as the real thing, one
// copy of the base in memory.

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/base/result.h"
#include "common/config/settings.h"
#include "common/runtime/executor.h"
#include "common/runtime/run_view.h"
#include "sim/disk_bug.h"
#include "sim/faults.h"

namespace weft::sim {

struct SimulationReport {
  uint64_t clients = 0;
  uint64_t workers = 0;
  double wall_s = 0;                 // everything: loading, rounds, evaluation
  double load_s = 0;                 // model, tokenizer, rows
  std::vector<double> round_wall_s;  // real seconds from one published version to the next
  double virtual_s = 0;              // the world's own time
  double client_steps_per_s =
      0;  // optimiser steps of all clients per real second of the median round
  std::vector<double>
      eval_loss;  // [0] before training; on the aggregator's rows, else the clients' mean
  std::vector<std::string> adapter_sha256;  // after every round, [0] the initial one
  uint64_t peak_rss_mb = 0;
  uint64_t crashes = 0;                // of processes, where faults were asked for
  uint64_t bit_flips = 0;              // in files of nodes that were down
  uint64_t messages = 0;               // handed to links, likewise
  uint64_t looks = 0;                  // of the checker, likewise
  std::string attack = "none";         // [sim] attack
  double attack_scale = 0;             // in effect; 0 where nobody attacks
  std::vector<std::string> attackers;  // by name
  RunView run;
};

struct SimulationOptions {
  Settings settings;
  /// What goes wrong; needs the virtual world. The run is then checked against sim/invariants.h all
  /// along, and ends at the latest after `virtual_s_max` of its own time.
  std::optional<FaultPlan> faults = std::nullopt;
  /// Draws the plan from this seed and the clients' names, where `faults` is not given.
  std::optional<uint64_t> fault_seed = std::nullopt;
  double virtual_s_max = 36000;
  Nanos write_time = std::chrono::milliseconds(2);  // of one write to a disk that can crash
  /// Told of every message, death and return, a line each: for the last moments of a run that broke
  /// a rule. May be empty.
  std::function<void(const std::string& line)> on_event = nullptr;
  /// For tests of the checkers: disks that do not keep their word, work that is not done as it
  /// should be.
  DiskBug disk_bug = DiskBug::kNone;
  std::function<void(WorkTable& work)> spoil = nullptr;
  /// Run folder that is written, ledger and blobs at the end, a PEFT folder of every round; it must
  /// not hold a run. Empty: none, and [run] keep-updates keeps nothing.
  std::string out_dir;
  std::function<void(const std::string& line)>
      on_notice;  // memory plan, rounds as they are published; may be empty
};

/// Relays of a federation of so many clients: none without a member.
[[nodiscard]] size_t RelayCount(const Settings& settings, size_t clients);
[[nodiscard]] ClientId RelayName(size_t index);

/// kResourceExhausted: the memory plan is over what [sim] memory-mb or the machine allows.
/// kInternal "[invariant] …": a rule was broken, which is a bug of ours. Else the run's own
/// outcome.
[[nodiscard]] Result<SimulationReport> Simulate(SimulationOptions options);

}  // namespace weft::sim
