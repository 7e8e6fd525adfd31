#pragma once
// Who takes part in a round, and with what: sampling, ranks, the round's plan. Pure functions of
// settings, seed and members' names, so that every world and every restart chooses the same.

#include <span>
#include <string>
#include <vector>

#include "common/config/settings.h"
#include "common/plan/base_description.h"
#include "common/plan/round_plan.h"

namespace weft {

/// How many of `available` clients train in a round: ⌈fraction_train × available⌉, at least
/// min_train_nodes, at most all.
[[nodiscard]] size_t CohortSize(const CohortSettings& cohort, size_t available);

/// The members of a try at a round, sorted by name. `available` is sorted by name and holds
/// `already`, those whose update for this round is taken: they are always in.
[[nodiscard]] std::vector<ClientId> SampleCohort(const CohortSettings& cohort, uint64_t seed,
                                                 RoundId round, uint32_t attempt,
                                                 std::span<const ClientId> available,
                                                 std::span<const ClientId> already);

/// Who evaluates a version: ⌈fraction_evaluate × able⌉ of `able`, sorted by name.
[[nodiscard]] std::vector<ClientId> SampleEvaluators(const CohortSettings& cohort, uint64_t seed,
                                                     RoundId version,
                                                     std::span<const ClientId> able);

/// The rank a site trains: what it offers, or adapter.rank where it names none; at most
/// `global_rank`.
[[nodiscard]] int64_t RankOfClient(const Capabilities& offer, const AdapterSpec& adapter,
                                   int64_t global_rank);

/// The method a site trains: `method`, or the first it offers where it does not offer that.
[[nodiscard]] std::string MethodOfClient(const Capabilities& offer, const std::string& method);

/// The methods that a run's sites train as far as its settings say: adapter.method first, each
/// once.
[[nodiscard]] std::vector<std::string> MethodsOfRun(const Settings& settings);

/// The rank of the global adapter as far as settings alone decide it: strategy.global_rank, or the
/// largest rank of the [[client]] tables or of the simulator's clients; 0 where it takes the
/// members' offers.
[[nodiscard]] int64_t GlobalRankFromSettings(const Settings& settings);

/// `adapter` at another rank, its scaling alpha/r unchanged (alpha itself with rsLoRA), entries of
/// rank_pattern at most that rank, layers smaller than it capped. `notice` gets what was capped.
[[nodiscard]] AdapterSpec SpecAtRank(const AdapterSpec& adapter, int64_t rank,
                                     std::span<const LinearSite> sites,
                                     std::vector<std::string>* notice);

/// The plan of a round but for its cohort and evaluators.
[[nodiscard]] RoundPlan PlanRound(const Settings& settings, const RunId& run, RoundId round,
                                  const std::string& base_hash);

/// Clients of equal keys are sent the same adapter.
[[nodiscard]] std::string CutKey(const ClientPlan& client);

/// The plan as one client is sent it: its own entry, nobody else's name; where an earlier round
/// asked it, as that round's plan was. `plan` is copied: for a whole cohort let it be one that
/// names nobody (OpenRound::common), or a round costs the square of its clients.
[[nodiscard]] RoundPlan PlanFor(const RoundPlan& plan, const ClientPlan& client);

}  // namespace weft
