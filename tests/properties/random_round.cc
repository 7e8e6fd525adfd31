#include "tests/properties/random_round.h"

#include <algorithm>
#include <cmath>

#include "aggregator/strategies/slots.h"
#include "common/base/str.h"

namespace weft::testing {
namespace {

std::vector<LinearSite> DrawSites(const RoundBounds& bounds) {
  std::vector<LinearSite> sites;
  const int64_t count = Draw("sites", 1, 2);
  for (int64_t i = 0; i < count; ++i) {
    sites.push_back({MemoryUpdates::Path(static_cast<size_t>(i)), Draw("in", bounds.size_min, 12),
                     Draw("out", bounds.size_min, 12)});
  }
  return sites;
}

struct Member {
  std::string name;
  int64_t rank;
  int64_t alpha;
  int64_t examples;
};

std::vector<Member> DrawCohort(const RoundBounds& bounds, bool mixed_ranks) {
  std::vector<Member> cohort;
  const int64_t count = Draw("clients", bounds.clients_min, bounds.clients_max);
  for (int64_t k = 0; k < count; ++k) {
    cohort.push_back({Str("c", k), Draw("rank", bounds.rank_min, 6), Draw("alpha", 1, 32),
                      Draw("examples", 1, 100)});
    if (!mixed_ranks) cohort.back().rank = cohort.front().rank;
  }
  return cohort;
}

std::vector<MemoryClient> Train(const RandomRound& round, const std::vector<Member>& cohort) {
  std::vector<MemoryClient> clients;
  for (const Member& member : cohort) {
    const ClientPlan plan = PlanFor(*round.strategy, round.settings, member.name, member.rank,
                                    static_cast<double>(member.alpha), round.number);
    clients.push_back(
        TrainedClient(*round.strategy, round.global, plan, round.seed + round.number));
    clients.back().weight = static_cast<double>(member.examples);
  }
  return clients;
}

// Columns of Q in QR of random numbers.
at::Tensor Orthogonal(int64_t rank, const std::string& label, uint64_t seed) {
  return std::get<0>(at::linalg_qr(RandomMatrix(rank, rank, label, seed)));
}

}  // namespace

StrategySettings DrawStrategy(bool (*wanted)(const StrategyTraits&)) {
  std::vector<std::string> names;
  for (const Strategy* strategy : ProductStrategies()) {
    if (wanted == nullptr || wanted(strategy->traits())) names.emplace_back(strategy->name());
  }
  StrategySettings settings{.name = *rc::gen::elementOf(names).as("strategy")};
  if (settings.name == "florist") settings.energy = 1;  // cuts nothing
  return settings;
}

RobustSettings RobustNamed(const std::string& rule) {
  RobustSettings robust;
  if (rule == "clip") {
    robust.clip = "median";
  } else {
    robust.rule = rule;
  }
  return robust;
}

RobustSettings DrawRobust() {
  return RobustNamed(*rc::gen::element<std::string>("none", "clip", "krum", "multi-krum", "bulyan",
                                                    "geometric-median", "median", "trimmed-mean",
                                                    "cosine")
                          .as("robust"));
}

RandomRound DrawRound(const StrategySettings& settings, const RoundBounds& bounds) {
  RandomRound round;
  round.strategy = *FindStrategy(settings.name);
  round.settings = settings;
  round.sites = DrawSites(bounds);
  const std::vector<Member> cohort = DrawCohort(bounds, round.strategy->traits().mixed_ranks);
  const auto before = static_cast<uint64_t>(Draw("rounds before", 0, bounds.rounds_before));
  round.seed = static_cast<uint64_t>(*rc::gen::noShrink(rc::gen::arbitrary<uint32_t>()).as("seed"));
  int64_t largest = 1;
  for (const Member& member : cohort) largest = std::max(largest, member.rank);
  Result<GlobalState> fresh = round.strategy->Init(LoraSpec(largest, static_cast<double>(largest)),
                                                   round.sites, round.seed);
  WEFT_CHECK(fresh.ok(), fresh.status());
  round.global = std::move(fresh).value();
  // History without robust rules: where one lets nobody through, nothing would be learned.
  RandomRound plain = round;
  plain.settings.robust = {};
  for (; round.number <= before; ++round.number) {
    plain.global = round.global;
    plain.number = round.number;
    round.global = Merged(plain, Train(plain, cohort)).global;
  }
  round.clients = Train(round, cohort);
  return round;
}

MergedRound Merged(const RandomRound& round, const UpdateSource& updates) {
  JobControl control;
  Result<MergedRound> merged =
      MergeRound(*round.strategy, {round.settings, round.global, updates, round.number}, control);
  WEFT_CHECK(merged.ok(), merged.status());
  return std::move(merged).value();
}

MergedRound Merged(const RandomRound& round, const std::vector<MemoryClient>& clients) {
  return Merged(round, MemoryUpdates(clients));
}

void ChangeGauge(MemoryClient& client, uint64_t seed) {
  for (size_t i = 0; i < client.factors.size(); ++i) {
    LowRank& factors = client.factors[i];
    const int64_t rank = factors.A_RI.size(0);
    const std::string label = Str(client.plan.client.name, " gauge ", i, " ");
    RandomStream stream = RandomStream::Derive(seed, {"gauge", label});
    std::vector<double> stretch;
    for (int64_t j = 0; j < rank; ++j) stretch.push_back(std::pow(100.0, stream.Uniform()));
    const at::Tensor D = at::tensor(stretch, at::kDouble);
    const at::Tensor left = Orthogonal(rank, label + "left", seed);
    const at::Tensor right = Orthogonal(rank, label + "right", seed);
    // G = left·D·right, so that its inverse is known.
    factors.B_OR = at::matmul(at::matmul(factors.B_OR.to(at::kDouble), left) * D, right);
    factors.A_RI =
        at::matmul(right.t(), at::matmul(left.t(), factors.A_RI.to(at::kDouble)) / D.unsqueeze(1));
  }
}

double Distance(const AdapterState& got, const AdapterState& wanted) {
  double square = 0;
  double whole = 0;
  for (size_t i = 0; i < wanted.sites.size(); ++i) {
    const at::Tensor product = Product(wanted, i);
    square += (Product(got, i) - product).square().sum().item<double>();
    whole += product.square().sum().item<double>();
  }
  if (!std::isfinite(square) || !std::isfinite(whole))
    return std::numeric_limits<double>::infinity();
  return square == 0 ? 0 : std::sqrt(square / whole);
}

}  // namespace weft::testing
