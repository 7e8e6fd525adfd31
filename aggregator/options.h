#pragma once
// AggregatorOptions: what a run's aggregator is told at its construction, whatever the world.

#include <functional>
#include <optional>
#include <string>

#include "common/config/settings.h"
#include "common/plan/base_description.h"

namespace weft {

struct AggregatorOptions {
  Settings settings;
  std::string settings_toml;  // the effective settings, for the ledger
  BaseDescription base;
  std::string base_model;      // name or path of the base for the exported adapter_config.json
  std::string run_dir;         // folder of the adapters/ that are exported; empty: none are written
  bool evaluate_here = false;  // a ServerEvaluateJob is registered ([evaluate] data is set)
  bool keep_running = false;   // stay up after the run, to tell late clients that it is over

  /// Looked at every second: the reason if somebody asked the run to stop.
  std::function<std::optional<std::string>()> stop_requested;
};

}  // namespace weft
