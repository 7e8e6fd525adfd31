#pragma once
// Attackers: clients of a simulation that train as they are asked and ship something else. Their
// updates pass through the same doors as honest ones: payload, size and hash fit one another.

#include <memory>
#include <string>
#include <vector>

#include "common/config/settings.h"
#include "sim/attack.h"
#include "sim/colluders.h"
#include "sim/sites.h"

namespace weft::sim {

struct AttackPlan {
  AttackKind kind = AttackKind::kNone;
  double scale = 0;                 // of the kind, never 0 for one that has a usual scale
  std::vector<ClientId> attackers;  // by name; empty: nobody attacks
};

/// The last [sim] attackers of the population by name. kInvalidArgument if nobody honest would be
/// left, if the attack does not fit the run (LoRA only; alie's own z wants f ≤ K/2), or if it is
/// refused at admission and cohort.quorum asks for more than the honest clients.
[[nodiscard]] Result<AttackPlan> PlanAttack(const Settings& settings, const Population& population);

/// Any thread, several at a time: what an attacker ships depends on its job alone.
class Attackers {
 public:
  Attackers(AttackPlan plan, Training honest);

  /// Honest for everybody else, and where the round measures instead of training.
  [[nodiscard]] Result<TrainJob::Output> Train(const TrainJob& job, JobControl& control);

  [[nodiscard]] const Colluders& colluders() const { return colluders_; }

 private:
  [[nodiscard]] Result<TrainJob::Output> Attack(const TrainJob& job, size_t index,
                                                JobControl& control);

  const AttackPlan plan_;
  const Training honest_;
  Colluders colluders_;
};

/// Puts the attackers between the executor and the training registered in the table so far.
void RegisterAttack(WorkTable& table, AttackPlan plan);

}  // namespace weft::sim
