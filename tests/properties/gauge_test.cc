// (B, A) → (B·G, G⁻¹·A) is the same update in other factors. Rules that depend on products alone
// must publish the same; the mean of factors must not, or these properties could not tell.

#include <algorithm>

#include "tests/properties/random_round.h"

namespace weft::testing {
namespace {

double ChangeUnderGauge(const RandomRound& round) {
  const MergedRound plain = Merged(round, round.clients);
  std::vector<MemoryClient> clients = round.clients;
  for (MemoryClient& client : clients) ChangeGauge(client, round.seed);
  return Distance(Merged(round, clients).global.adapter, plain.global.adapter);
}

std::string TestName(const ::testing::TestParamInfo<std::string>& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class GaugeFreeStrategyProperty : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> GaugeFreeStrategies() {
  std::vector<std::string> names;
  for (const Strategy* strategy : ProductStrategies()) {
    if (strategy->traits().gauge_free) names.emplace_back(strategy->name());
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registry, GaugeFreeStrategyProperty,
                         ::testing::ValuesIn(GaugeFreeStrategies()), TestName);

TEST_P(GaugeFreeStrategyProperty, PublishesTheSame) {
  CheckProperty([] {
    const RandomRound round = DrawRound({.name = GetParam()});
    RC_ASSERT(ChangeUnderGauge(round) < kPublished);
  });
}

class GaugeFreeRuleProperty : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Robust, GaugeFreeRuleProperty,
                         ::testing::Values("krum", "multi-krum", "geometric-median", "clip",
                                           "median", "trimmed-mean", "bulyan", "cosine"),
                         TestName);

TEST_P(GaugeFreeRuleProperty, PublishesTheSame) {
  CheckProperty([] {
    StrategySettings settings{.name = *rc::gen::element<std::string>("exact-svd", "flora")};
    settings.robust = RobustNamed(GetParam());
    const RandomRound round = DrawRound(settings, {.rounds_before = 1});
    RC_ASSERT(ChangeUnderGauge(round) < kPublished);
  });
}

TEST(GaugeProperty, TheMeanOfFactorsChanges) {
  CheckProperty([] {
    const RandomRound round =
        DrawRound({.name = "fedavg"}, {.clients_min = 2, .rank_min = 2, .size_min = 3});
    RC_ASSERT(ChangeUnderGauge(round) > kPublished);
  });
}

}  // namespace
}  // namespace weft::testing
