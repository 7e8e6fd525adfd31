#pragma once
// Scenarios: kinds of trouble that a federation is put through, seed by seed (torture.h). Each is
// some settings and the bounds within which faults are drawn.

#include <span>
#include <string_view>

#include "common/base/result.h"
#include "common/config/settings.h"
#include "sim/faults.h"

namespace weft::sim {

struct Scenario {
  std::string_view name;
  std::string_view what;  // a line, for people
  void (*set)(Settings& settings) = nullptr;
  FaultBounds bounds = {};
  Nanos write_time = std::chrono::milliseconds(2);
  /// Nobody is lost for good and nothing depends on who comes first: every version must have the
  /// bits it has without faults.
  bool same_bits = true;
  /// This many of the clients die for good when faults begin.
  uint64_t lost_clients = 0;
};

/// In a fixed order.
[[nodiscard]] std::span<const Scenario> Scenarios();

/// kNotFound listing the known ones.
[[nodiscard]] Result<const Scenario*> FindScenario(std::string_view name);

}  // namespace weft::sim
