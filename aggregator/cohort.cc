#include "aggregator/cohort.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "aggregator/strategies/slots.h"
#include "aggregator/strategies/strategy.h"
#include "common/adapters/adapter.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/plan/json.h"

namespace weft {
namespace {

size_t ShareOf(double fraction, size_t count) {
  // 0.1 × 30 is a little over 3 in binary; a share that means 3 must not become 4.
  const double wanted = std::ceil(fraction * static_cast<double>(count) - 1e-9);
  return static_cast<size_t>(std::clamp(wanted, 0.0, static_cast<double>(count)));
}

std::vector<ClientId> Draw(RandomStream stream, std::span<const ClientId> from, size_t count) {
  const std::vector<size_t> order = stream.Permutation(from.size());
  std::vector<ClientId> drawn;
  for (size_t i = 0; i < std::min(count, from.size()); ++i) drawn.push_back(from[order[i]]);
  std::sort(drawn.begin(), drawn.end());
  return drawn;
}

// With local_epochs a client counts its own steps per round; the trainer derives this itself.
int64_t StepsBefore(const LocalTraining& training, RoundId round) {
  return training.local_steps * (int64_t{round.number} - 1);
}

// Clients may owe what they left out only where the next round's factors mean the same as this
// one's.
bool KeepsBasis(const StrategySettings& settings) {
  const Result<const Strategy*> strategy = FindStrategy(settings.name);
  return strategy.ok() && (*strategy)->traits().keeps_basis;
}

}  // namespace

size_t CohortSize(const CohortSettings& cohort, size_t available) {
  const auto least = static_cast<size_t>(std::max<int64_t>(cohort.min_train_nodes, 1));
  return std::min(available, std::max(ShareOf(cohort.fraction_train, available), least));
}

std::vector<ClientId> SampleCohort(const CohortSettings& cohort, uint64_t seed, RoundId round,
                                   uint32_t attempt, std::span<const ClientId> available,
                                   std::span<const ClientId> already) {
  std::vector<ClientId> open;
  for (const ClientId& client : available) {
    if (std::find(already.begin(), already.end(), client) == already.end()) open.push_back(client);
  }
  const size_t size = CohortSize(cohort, available.size());
  const size_t more = size > already.size() ? size - already.size() : 0;
  std::vector<ClientId> chosen = Draw(
      RandomStream::Derive(seed, {"cohort", std::to_string(round.number), std::to_string(attempt)}),
      open, more);
  chosen.insert(chosen.end(), already.begin(), already.end());
  std::sort(chosen.begin(), chosen.end());
  return chosen;
}

std::vector<ClientId> SampleEvaluators(const CohortSettings& cohort, uint64_t seed, RoundId version,
                                       std::span<const ClientId> able) {
  return Draw(RandomStream::Derive(seed, {"evaluators", std::to_string(version.number)}), able,
              ShareOf(cohort.fraction_evaluate, able.size()));
}

int64_t RankOfClient(const Capabilities& offer, const AdapterSpec& adapter, int64_t global_rank) {
  if (offer.members > 0) {
    if (global_rank == 0) return adapter.rank;
    // What its members send back adds up to as many ranks as they have, half of what the relay
    // offers; what they were sent lies in the global adapter's own.
    const int64_t sent_back = std::min(offer.rank_max / 2, int64_t{offer.members} * global_rank);
    return std::clamp<int64_t>(sent_back + global_rank, 1, std::max<int64_t>(offer.rank_max, 1));
  }
  const int64_t offered = offer.rank_max > 0 ? offer.rank_max : adapter.rank;
  return global_rank > 0 ? std::min(offered, global_rank) : offered;
}

std::string MethodOfClient(const Capabilities& offer, const std::string& method) {
  const std::vector<std::string>& known = offer.methods;
  const bool offered =
      known.empty() || std::find(known.begin(), known.end(), method) != known.end();
  return offered ? method : known.front();
}

std::vector<std::string> MethodsOfRun(const Settings& settings) {
  std::vector<std::string> methods = {settings.adapter.method};
  const auto add = [&](const std::string& method) {
    const bool known = std::find(methods.begin(), methods.end(), method) != methods.end();
    if (!method.empty() && !known) methods.push_back(method);
  };
  for (const ClientSettings& client : settings.clients) add(client.method);
  for (const std::string& method : settings.sim.methods) add(method);
  return methods;
}

int64_t GlobalRankFromSettings(const Settings& settings) {
  if (settings.strategy.global_rank > 0) return settings.strategy.global_rank;
  int64_t largest = 0;
  for (const ClientSettings& client : settings.clients) {
    int64_t rank = 0;
    const char* end = client.rank.data() + client.rank.size();
    const auto [stop, error] = std::from_chars(client.rank.data(), end, rank);
    if (error != std::errc() || stop != end) return 0;  // "auto": the site decides
    largest = std::max(largest, rank);
  }
  if (settings.clients.empty() && settings.sim.clients > 0) {  // virtual ones join one by one
    const std::vector<int64_t>& ranks = settings.sim.ranks;
    const auto given = std::min(static_cast<int64_t>(ranks.size()), settings.sim.clients);
    largest = ranks.empty() ? settings.adapter.rank
                            : *std::max_element(ranks.begin(), ranks.begin() + given);
  }
  return largest;
}

AdapterSpec SpecAtRank(const AdapterSpec& adapter, int64_t rank, std::span<const LinearSite> sites,
                       std::vector<std::string>* notice) {
  AdapterSpec spec = adapter;
  const double ratio = static_cast<double>(rank) / static_cast<double>(adapter.rank);
  spec.rank = rank;
  if (!adapter.rslora) {
    spec.alpha = adapter.alpha * ratio;
    for (auto& [pattern, alpha] : spec.alpha_pattern) alpha *= ratio;
  }
  for (auto& [pattern, pattern_rank] : spec.rank_pattern) {
    pattern_rank = std::min(pattern_rank, rank);
  }
  std::vector<std::string> capped = CapRanks(spec, sites);
  if (notice != nullptr) *notice = std::move(capped);
  return spec;
}

RoundPlan PlanRound(const Settings& settings, const RunId& run, RoundId round,
                    const std::string& base_hash) {
  RoundPlan plan;
  plan.run = run;
  plan.round = round;
  plan.version = RoundId{round.number - 1};
  plan.num_server_rounds = static_cast<uint32_t>(settings.run.num_server_rounds);
  plan.base_hash = base_hash;
  plan.seed = settings.run.seed;
  plan.strategy = settings.strategy.name;
  plan.codec = settings.wire.codec;
  plan.delta = settings.wire.delta;
  plan.top_k = settings.wire.top_k;
  plan.error_feedback =
      settings.wire.delta && settings.wire.error_feedback && KeepsBasis(settings.strategy);
  plan.compress = settings.wire.compress;
  plan.down_codec = settings.wire.down_codec;
  plan.training = settings.train;
  plan.training.steps_done = StepsBefore(plan.training, round);
  plan.deadline_s = settings.cohort.deadline_s;
  plan.max_staleness = static_cast<uint32_t>(settings.cohort.max_staleness);
  plan.staleness_exponent = settings.cohort.staleness_exponent;
  return plan;
}

std::string CutKey(const ClientPlan& client) {
  return Str(client.asked, " ", ToJson(client.adapter),
             HasDrawnSlots(client.adapter) ? client.client.name : "");
}

RoundPlan PlanFor(const RoundPlan& plan, const ClientPlan& client) {
  RoundPlan own = plan;
  own.cohort = {client};
  if (client.asked.number > 0) {
    own.round = client.asked;
    own.version = StartOf(own.round);
    own.training.steps_done = StepsBefore(plan.training, own.round);
    own.cohort.front().asked = {};
  }
  own.evaluators.clear();
  return own;
}

}  // namespace weft
