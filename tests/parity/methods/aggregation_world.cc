#include "tests/parity/methods/aggregation_world.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/strategies/slots.h"
#include "common/base/str.h"

namespace weft::testing {
namespace {

template <typename T>
T Parsed(std::string_view text) {
  T value{};
  const auto [stop, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || stop != text.data() + text.size()) {
    throw GoldenError(Str("\"", text, "\" in the name of a tensor, wanted a number"));
  }
  return value;
}

std::string ShapeOf(const at::Tensor& tensor) { return ShapeText(tensor.sizes().vec()); }

// One number for all clients, or one of each.
template <typename T>
T OfClient(const std::vector<T>& values, size_t client, size_t count, std::string_view name) {
  if (values.size() != 1 && values.size() != count) {
    throw GoldenError(
        Str(name, " holds ", values.size(), " numbers, there are ", count, " clients"));
  }
  return values.size() == 1 ? values[0] : values[client];
}

std::vector<LinearSite> SitesOf(GoldenSet& golden) {
  std::vector<LinearSite> sites;
  const int64_t layers = golden.Count("client0.layer");
  for (size_t l = 0; l < static_cast<size_t>(layers); ++l) {
    const at::Tensor A_RI = golden.Doubles(OfLayer("client0.", l, "A"), {-1, -1});
    const at::Tensor B_OR = golden.Doubles(OfLayer("client0.", l, "B"), {-1, A_RI.size(0)});
    sites.push_back({MemoryUpdates::Path(l), A_RI.size(1), B_OR.size(0)});
  }
  return sites;
}

std::vector<MemoryClient> ClientsOf(GoldenSet& golden, const std::vector<LinearSite>& sites) {
  const auto count = static_cast<size_t>(golden.Count("client"));
  const std::vector<int64_t> ranks = golden.Integers("rank");
  const std::vector<double> alphas = golden.Numbers("alpha");
  const std::vector<double> examples = golden.Numbers("n");
  std::vector<MemoryClient> clients;
  for (size_t k = 0; k < count; ++k) {
    const int64_t rank = OfClient(ranks, k, count, "rank");
    MemoryClient client{
        {ClientId{Str("c", k)}, LoraSpec(rank, OfClient(alphas, k, count, "alpha"))},
        OfClient(examples, k, count, "n"),
        {}};
    const std::string prefix = Str("client", k, ".");
    for (size_t l = 0; l < sites.size(); ++l) {
      client.factors.push_back({golden.Doubles(OfLayer(prefix, l, "A"), {rank, sites[l].in}),
                                golden.Doubles(OfLayer(prefix, l, "B"), {sites[l].out, rank})});
    }
    clients.push_back(std::move(client));
  }
  return clients;
}

const Strategy& Named(const std::string& name) {
  const Result<const Strategy*> strategy = FindStrategy(name);
  WEFT_CHECK(strategy.ok(), strategy.status());
  return **strategy;
}

StrategySettings Robust(const std::string& strategy, const RobustSettings& robust) {
  StrategySettings settings{.name = strategy};
  settings.robust = robust;
  return settings;
}

}  // namespace

std::string OfLayer(std::string_view prefix, size_t layer, std::string_view name) {
  return Str(prefix, "layer", layer, ".", name);
}

double NumberIn(std::string_view text) { return Parsed<double>(text); }
int64_t IntegerIn(std::string_view text) { return Parsed<int64_t>(text); }

std::vector<std::string> Variants(const GoldenSet& golden, std::string_view prefix,
                                  std::string_view suffix) {
  std::vector<std::string> variants;
  for (const std::string& name : golden.Names(prefix)) {
    if (name.size() <= prefix.size() + suffix.size() || !name.ends_with(suffix)) continue;
    variants.push_back(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
  }
  if (variants.empty()) throw GoldenError(Str("no tensor ", prefix, "…", suffix));
  return variants;
}

void ExpectNear(GoldenSet& golden, const std::string& name, const at::Tensor& got,
                double tolerance) {
  const at::Tensor wanted = golden.Doubles(name);
  ASSERT_EQ(ShapeOf(got), ShapeOf(wanted)) << name;
  const double distance = MaxAbs(got.to(at::kDouble) - wanted);
  EXPECT_TRUE(distance <= tolerance)  // false for NaN
      << name << " differs by " << distance << ", tolerance " << tolerance;
}

void ExpectNear(GoldenSet& golden, const std::string& name, const std::vector<double>& got,
                double tolerance) {
  ExpectNear(golden, name, at::tensor(got, at::kDouble), tolerance);
}

void ExpectSpectrum(GoldenSet& golden, const std::string& name, const at::Tensor& got) {
  const at::Tensor wanted = golden.Doubles(name, {-1});
  const int64_t shared = std::min(got.size(0), wanted.size(0));
  EXPECT_LE(MaxAbs(got.narrow(0, 0, shared) - wanted.narrow(0, 0, shared)), kExact) << name;
  EXPECT_LE(MaxAbs(got.narrow(0, shared, got.size(0) - shared)), kExact) << name;
  EXPECT_LE(MaxAbs(wanted.narrow(0, shared, wanted.size(0) - shared)), kExact) << name;
}

void ExpectSlots(GoldenSet& golden, const std::string& name, const at::Tensor& got_slots,
                 const at::Tensor& wanted_slots, const at::Tensor& spectrum) {
  golden.Use(name);
  ASSERT_EQ(got_slots.size(1), wanted_slots.size(1)) << name;
  const at::Tensor values = spectrum.contiguous();
  const double* const S = values.const_data_ptr<double>();
  const int64_t count = values.size(0);
  const int64_t shared = std::min(got_slots.size(0), wanted_slots.size(0));
  for (int64_t j = 0; j < shared; ++j) {
    // Beyond the last value lies 0: a slot without energy has no direction.
    double gap = S[j] - (j + 1 < count ? S[j + 1] : 0);
    if (j > 0) gap = std::min(gap, S[j - 1] - S[j]);
    if (gap < 1e-6 * S[0]) continue;
    const double tolerance = std::max(kExact, 1e-13 * S[0] * S[0] / gap);
    EXPECT_LE(MaxAbs(got_slots[j] - wanted_slots[j]), tolerance) << name << " slot " << j;
  }
}

AggregationWorld::AggregationWorld(const std::string& file)
    : golden(file), sites(SitesOf(golden)), clients(ClientsOf(golden, sites)) {}

MemoryUpdates AggregationWorld::UniformUpdates() const {
  std::vector<MemoryClient> uniform = clients;
  for (MemoryClient& client : uniform) client.weight = 1;
  return MemoryUpdates(std::move(uniform));
}

MemoryUpdates AggregationWorld::AtLayer(size_t layer) const {
  std::vector<MemoryClient> alone = clients;
  for (MemoryClient& client : alone) client.factors = {client.factors[layer]};
  return MemoryUpdates(std::move(alone));
}

int64_t AggregationWorld::LargestRank() const {
  int64_t largest = 0;
  for (const MemoryClient& client : clients) {
    largest = std::max(largest, client.plan.adapter.rank);
  }
  return largest;
}

double AggregationWorld::Scaling() const {
  const double scaling = ScalingFor(clients[0].plan.adapter, sites[0].path);
  for (const MemoryClient& client : clients) {
    if (ScalingFor(client.plan.adapter, sites[0].path) == scaling) continue;
    throw GoldenError("clients of different scalings, wanted one");
  }
  return scaling;
}

GlobalState StateOf(std::string_view strategy, int64_t rank, const std::vector<LinearSite>& sites,
                    const std::vector<LowRank>& factors) {
  GlobalState global{std::string(strategy), LoraSpec(rank, static_cast<double>(rank)), {}};
  for (size_t l = 0; l < sites.size(); ++l) {
    global.adapter.sites.push_back(
        {sites[l], {{"A", factors[l].A_RI.contiguous()}, {"B", factors[l].B_OR.contiguous()}}});
  }
  global.adapter.spec = UnitSpec(global.init, global.adapter.sites);
  return global;
}

GlobalState EmptyState(std::string_view strategy, const std::vector<LinearSite>& sites,
                       int64_t rank) {
  std::vector<LowRank> factors;
  int64_t widest = 1;
  for (const LinearSite& site : sites) {
    factors.push_back({at::ones({1, site.in}, at::kDouble), at::zeros({site.out, 1}, at::kDouble)});
    widest = std::max(widest, std::min(site.in, site.out));
  }
  return StateOf(strategy, rank == 0 ? widest : rank, sites, factors);
}

SiteMerge MergeLayer(const StrategySettings& settings, const GlobalState& global,
                     const UpdateSource& updates, size_t layer, uint64_t round) {
  const Strategy& strategy = Named(settings.name);
  const MergeInput input{settings, global, updates, round};
  const Result<RoundSurvey> survey = strategy.Survey(input);
  WEFT_CHECK(survey.ok(), survey.status());
  Result<SiteMerge> merge = strategy.MergeSite(input, *survey, layer);
  WEFT_CHECK(merge.ok(), merge.status());
  return std::move(merge).value();
}

at::Tensor GramOf(const UpdateSource& updates, const std::vector<LinearSite>& sites) {
  const StrategySettings settings{.name = "exact-svd"};
  const GlobalState global = EmptyState(settings.name, sites);
  JobControl control;
  Result<at::Tensor> gram = ChangeGram(Named(settings.name), {settings, global, updates}, control);
  WEFT_CHECK(gram.ok(), gram.status());
  return std::move(gram).value();
}

RobustRound RunRobust(const RobustSettings& robust, const UpdateSource& updates,
                      const std::vector<LinearSite>& sites) {
  std::vector<double> weights;
  size_t trusted = updates.size();
  for (size_t k = 0; k < updates.size(); ++k) {
    weights.push_back(updates.weight(k));
    if (updates.plan(k).client.name == robust.trusted) trusted = k;
  }
  RobustRound round{ChooseClients(robust, GramOf(updates, sites), weights, trusted), {}};
  const Reweighed weighed(updates, round.choice.coefficients);
  for (const std::string name : {"flora", "exact-svd"}) {
    SCOPED_TRACE(name);
    const StrategySettings settings = Robust(name, robust);
    const GlobalState global = EmptyState(name, sites);
    JobControl control;
    const Result<MergedRound> merged =
        MergeRound(Named(name), {settings, global, updates}, control);
    WEFT_CHECK(merged.ok(), merged.status());
    for (size_t k = 0; k < updates.size(); ++k) {
      EXPECT_NEAR(merged->certificate.client_coefficients.at(k).second,
                  round.choice.coefficients[k], kMedian);
    }
    for (size_t l = 0; l < sites.size(); ++l) {
      const at::Tensor dW_OI = Product(MergeLayer(settings, global, weighed, l).factors);
      EXPECT_LE(Relative(Product(merged->global.adapter, l), dW_OI), kFloat32) << l;
      if (name == "flora") {
        round.dW_OI.push_back(dW_OI);
      } else {
        EXPECT_LE(MaxAbs(dW_OI - round.dW_OI[l]), kExact) << l;
      }
    }
  }
  return round;
}

}  // namespace weft::testing
