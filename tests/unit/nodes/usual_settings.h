#pragma once
// The settings that node tests start from.

#include "common/config/settings.h"

namespace weft::testing {

/// Three named sites, all of them in every round.
[[nodiscard]] inline Settings UsualSettings(int64_t rounds) {
  Settings settings;
  settings.run.name = "test";
  settings.run.seed = 11;
  settings.run.num_server_rounds = rounds;
  settings.adapter.rank = 8;
  settings.adapter.alpha = 16;
  settings.adapter.target_modules = {"all-linear"};
  settings.strategy.name = "fedavg";
  settings.cohort.min_available_nodes = 3;
  settings.cohort.join_deadline_s = 300;
  settings.cohort.deadline_s = 120;
  for (const char* name : {"alpha", "beta", "gamma"}) {
    ClientSettings client;
    client.name = name;
    client.rank = "auto";
    settings.clients.push_back(client);
  }
  return settings;
}

}  // namespace weft::testing
