// golden/flora: the official stacking code (README there), float32, so 1e-5. Its blocks carry no
// scaling: alpha = rank makes ours 1.
//
// Shape legend: R a client's rank, S all ranks together, I in, O out, K clients.

#include <gtest/gtest.h>

#include "tests/parity/methods/golden_set.h"
#include "tests/support/strategy_world.h"

namespace weft::testing {
namespace {

constexpr double kTolerance = 1e-5;

/// One case of the file: its clients, and its modules as sites.
struct FloraCase {
  std::string prefix;                // "heter."
  std::vector<std::string> modules;  // "mod0", …
  MemoryUpdates updates;
  GlobalState global;  // nothing learned yet
};

LowRank Upload(GoldenSet& golden, const std::string& client, const std::string& module,
               int64_t rank) {
  return {golden.Doubles(client + module + ".A", {rank, -1}),
          golden.Doubles(client + module + ".B", {-1, rank})};
}

FloraCase ReadCase(GoldenSet& golden, const std::string& prefix) {
  const std::vector<int64_t> ranks = golden.Integers(prefix + "ranks");
  const std::vector<double> examples = golden.Numbers(prefix + "n_examples");
  const int64_t count = golden.Count(prefix + "client");
  const std::vector<std::string> modules = golden.Between(prefix + "client0.", ".A");
  if (static_cast<int64_t>(ranks.size()) != count || examples.size() != ranks.size()) {
    throw GoldenError(Str(prefix, ": ", count, " clients, ", ranks.size(), " ranks, ",
                          examples.size(), " numbers of examples"));
  }
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < ranks.size(); ++k) {
    const std::string client = Str(prefix, "client", k, ".");
    clients.push_back({{ClientId{Str("c", k)}, LoraSpec(ranks[k], static_cast<double>(ranks[k]))},
                       examples[k],
                       {}});
    for (const std::string& module : modules) {
      clients.back().factors.push_back(Upload(golden, client, module, ranks[k]));
    }
  }
  GlobalState global{"flora", LoraSpec(1, 1), {}};
  for (size_t m = 0; m < modules.size(); ++m) {
    const LowRank& first = clients.front().factors[m];
    const LinearSite site{MemoryUpdates::Path(m), first.A_RI.size(1), first.B_OR.size(0)};
    global.adapter.sites.push_back({site,
                                    {{"A", at::zeros({1, site.in}, at::kDouble)},
                                     {"B", at::zeros({site.out, 1}, at::kDouble)}}});
  }
  global.adapter.spec = UnitSpec(global.init, global.adapter.sites);
  return {prefix, modules, MemoryUpdates(std::move(clients)), std::move(global)};
}

SiteMerge Merge(const FloraCase& at_hand, const std::string& strategy, size_t module) {
  const StrategySettings settings{.name = strategy};
  const Result<const Strategy*> rule = FindStrategy(strategy);
  WEFT_CHECK(rule.ok(), rule.status());
  // −1: blocks are appended, even beyond the rank at which flora recompresses them.
  const RoundSurvey append{.ranks = std::vector<int64_t>(at_hand.modules.size(), -1)};
  Result<SiteMerge> merge =
      (*rule)->MergeSite({settings, at_hand.global, at_hand.updates}, append, module);
  WEFT_CHECK(merge.ok(), merge.status());
  return std::move(merge).value();
}

void ExpectStack(GoldenSet& golden, const FloraCase& at_hand, size_t m) {
  const std::string& module = at_hand.modules[m];
  const SiteMerge flora = Merge(at_hand, "flora", m);
  golden.ExpectClose(at_hand.prefix + "stacked." + module + ".A", flora.factors.A_RI, kTolerance);
  golden.ExpectClose(at_hand.prefix + "stacked." + module + ".B", flora.factors.B_OR, kTolerance);
  const std::string product = at_hand.prefix + "delta_W_unscaled." + module;
  golden.ExpectClose(product, Product(flora.factors), kTolerance);
  const LinearSite& site = at_hand.global.adapter.sites[m].site;
  LowRankSum sum(site.out, site.in);
  for (size_t k = 0; k < at_hand.updates.size(); ++k) {
    sum.Add(*at_hand.updates.Factors(k, m), at_hand.updates.weight(k));
  }
  golden.ExpectClose(product, sum.Matrix(), kTolerance);
  // The rule itself recompresses what is no longer low-rank, and loses nothing.
  const StrategySettings settings{.name = "flora"};
  const MergeInput input{settings, at_hand.global, at_hand.updates};
  const Strategy& rule = **FindStrategy("flora");
  const Result<RoundSurvey> survey = rule.Survey(input);
  ASSERT_TRUE(survey.ok()) << survey.status();
  const Result<SiteMerge> merge = rule.MergeSite(input, *survey, m);
  ASSERT_TRUE(merge.ok()) << merge.status();
  EXPECT_LE(merge->factors.A_RI.size(0), std::min(site.in, site.out));
  golden.ExpectClose(product, Product(merge->factors), kTolerance);
}

void ExpectZeroPadding(GoldenSet& golden, const FloraCase& at_hand, size_t m) {
  const std::string& module = at_hand.modules[m];
  const SiteMerge mean = Merge(at_hand, "fedavg", m);
  golden.ExpectClose(at_hand.prefix + "zero_pad." + module + ".A", mean.factors.A_RI, kTolerance);
  golden.ExpectClose(at_hand.prefix + "zero_pad." + module + ".B", mean.factors.B_OR, kTolerance);
  golden.ExpectClose(at_hand.prefix + "zero_pad_fedavg_delta_W." + module, Product(mean.factors),
                     kTolerance);
}

// FedIT is the mean of factors of one rank. The released branch hands on the first client's alone.
void ExpectFedIt(GoldenSet& golden, const FloraCase& at_hand, size_t m) {
  const LowRank mean = Merge(at_hand, "fedavg", m).factors;
  const LowRank first = *at_hand.updates.Factors(0, m);
  const double weight = at_hand.updates.weight(0);
  const std::string intended = at_hand.prefix + "fedit_intended." + at_hand.modules[m];
  const std::string released = at_hand.prefix + "official_fedit_bug." + at_hand.modules[m];
  if (golden.Has(intended + ".A")) golden.ExpectClose(intended + ".A", mean.A_RI, kTolerance);
  if (golden.Has(intended + ".B")) golden.ExpectClose(intended + ".B", mean.B_OR, kTolerance);
  if (golden.Has(released + ".A")) {
    golden.ExpectClose(released + ".A", first.A_RI * weight, kTolerance);
  }
  if (golden.Has(released + ".B")) {
    golden.ExpectClose(released + ".B", first.B_OR * weight, kTolerance);
  }
}

TEST(FloraParity, StacksZeroPaddingAndMeansAreThoseOfTheOfficialCode) {
  GoldenSet golden("flora/flora.safetensors");
  for (const std::string& prefix : golden.Cases("ranks")) {
    SCOPED_TRACE(prefix);
    const FloraCase at_hand = ReadCase(golden, prefix);
    std::vector<double> weights;
    for (size_t k = 0; k < at_hand.updates.size(); ++k) {
      weights.push_back(at_hand.updates.weight(k));
    }
    golden.ExpectClose(prefix + "weights", at::tensor(weights, at::kDouble), kTolerance);
    for (size_t m = 0; m < at_hand.modules.size(); ++m) {
      ExpectStack(golden, at_hand, m);
      ExpectZeroPadding(golden, at_hand, m);
      ExpectFedIt(golden, at_hand, m);
    }
  }
  golden.ExpectAllUsed();
}

}  // namespace
}  // namespace weft::testing
