// The one table of objectives.

#include <array>

#include "client/objectives/objective.h"
#include "common/base/str.h"

namespace weft {

Status Objective::Check(const LocalTraining&) const { return OkStatus(); }

std::span<const Objective* const> ObjectiveRegistry() {
  static const std::array<const Objective*, 2> kObjectives = {
      SftObjective(),
      FedProxObjective(),
  };
  return kObjectives;
}

Result<const Objective*> FindObjective(std::string_view name) {
  std::string known;
  for (const Objective* objective : ObjectiveRegistry()) {
    if (objective->name() == name) return objective;
    known += (known.empty() ? "" : ", ") + std::string(objective->name());
  }
  return NotFound(Str("[train] no objective is called \"", name, "\"; known: ", known));
}

}  // namespace weft
