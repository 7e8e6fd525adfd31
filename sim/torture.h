#pragma once
// Torture: one small federation after the other, each put through the faults of a scenario as drawn
// from a seed, held to sim/invariants.h all along and, where the scenario allows, to the bits of
// the run without faults.

#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "sim/scenarios.h"
#include "sim/simulation.h"

namespace weft::sim {

/// What came of one seed of one scenario.
struct TortureOutcome {
  std::string scenario;
  uint64_t seed = 0;
  Status status;                         // ok, or the rule that was broken
  std::string faults;                    // FaultPlan::Text
  std::vector<std::string> last_events;  // of a failure: its last 20
  double virtual_s = 0;
  uint64_t crashes = 0;
  uint64_t bit_flips = 0;
  uint64_t messages = 0;
  uint64_t looks = 0;  // of the checker
};

/// Names of deliberate bugs, to see whether the checkers notice.
[[nodiscard]] std::vector<std::string> TortureBugs();

class Torture {
 public:
  /// `folder` holds the base model (small_base.h) or is given it. `bug`: one of TortureBugs, or
  /// none.
  [[nodiscard]] static Result<Torture> Open(const std::filesystem::path& folder,
                                            const std::string& bug = "");

  /// From now on run folders are written, of each case and of the run without faults:
  /// "DIR/crashes-17" and "DIR/crashes-17-calm".
  void WriteRunsTo(std::string dir) { out_ = std::move(dir); }

  /// Runs that seed. The same arguments, the same outcome. `on_event` is told of every event.
  [[nodiscard]] TortureOutcome Run(const Scenario& scenario, uint64_t seed,
                                   const std::function<void(const std::string&)>& on_event = {});

 private:
  explicit Torture(std::filesystem::path folder) : folder_(std::move(folder)) {}
  [[nodiscard]] Settings SettingsOf(const Scenario& scenario, uint64_t seed) const;
  [[nodiscard]] SimulationOptions OptionsOf(const Scenario& scenario, uint64_t seed) const;
  /// Hashes of the run without faults.
  [[nodiscard]] Result<std::vector<std::string>> Calm(const Scenario& scenario, uint64_t seed);

  std::filesystem::path folder_;
  std::string bug_;
  std::string out_;
  std::map<std::pair<std::string, uint64_t>, std::vector<std::string>> calm_;
};

}  // namespace weft::sim
