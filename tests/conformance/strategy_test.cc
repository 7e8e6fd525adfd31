// What every strategy of the registry promises, whatever its formula.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/merge_work.h"
#include "aggregator/spooled_updates.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "common/codec/precision.h"
#include "common/crypto/digest.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::IdleClient;
using testing::LoraSpec;
using testing::MaxAbs;
using testing::MemoryClient;
using testing::MemoryUpdates;
using testing::PlanFor;
using testing::Product;
using testing::RandomMatrix;
using testing::Relative;
using testing::TrainedClient;

// One wide, one tall, and one narrower than the largest rank.
const std::vector<LinearSite>& Sites() {
  static const auto* sites = new std::vector<LinearSite>{{MemoryUpdates::Path(0), 40, 24},
                                                         {MemoryUpdates::Path(1), 18, 36},
                                                         {MemoryUpdates::Path(2), 32, 6}};
  return *sites;
}

constexpr uint64_t kRound = 3;  // that follows on Trained's two

MergedRound Merge(const StrategySettings& settings, const GlobalState& global,
                  const UpdateSource& updates, uint64_t round = kRound) {
  JobControl control;
  Result<MergedRound> merged =
      MergeRound(**FindStrategy(settings.name), {settings, global, updates, round}, control);
  WEFT_CHECK(merged.ok(), merged.status());
  return std::move(merged).value();
}

GlobalState Init(const Strategy& strategy, int64_t rank = 8) {
  Result<GlobalState> global =
      strategy.Init(LoraSpec(rank, 2.0 * static_cast<double>(rank)), Sites(), 3);
  WEFT_CHECK(global.ok(), global.status());
  return std::move(global).value();
}

MemoryClient Client(const StrategySettings& settings, const GlobalState& global,
                    const std::string& name, int64_t rank, double alpha, uint64_t round = kRound,
                    uint64_t seed = 1) {
  const Strategy& strategy = **FindStrategy(settings.name);
  if (!strategy.traits().mixed_ranks) rank = global.init.rank;
  return TrainedClient(strategy, global, PlanFor(strategy, settings, name, rank, alpha, round),
                       seed);
}

std::vector<MemoryClient> ThreeClients(const StrategySettings& settings, const GlobalState& global,
                                       uint64_t round = kRound) {
  std::vector<MemoryClient> clients = {Client(settings, global, "alice", 4, 8, round, round),
                                       Client(settings, global, "bob", 8, 4, round, round),
                                       Client(settings, global, "carol", 2, 6, round, round)};
  clients[0].weight = 3;
  clients[1].weight = 1;
  clients[2].weight = 6;
  return clients;
}

// A state that two rounds of training have left.
GlobalState Trained(const StrategySettings& settings) {
  GlobalState global = Init(**FindStrategy(settings.name));
  for (const uint64_t round : {1, 2}) {
    global =
        Merge(settings, global, MemoryUpdates(ThreeClients(settings, global, round)), round).global;
  }
  return global;
}

// (B, A) → (B·G, G⁻¹·A): another pair of factors of the same product.
void ChangeGauge(MemoryClient& client, uint64_t seed) {
  for (LowRank& factors : client.factors) {
    const int64_t rank = factors.A_RI.size(0);
    const at::Tensor G = RandomMatrix(rank, rank, "gauge", seed) + 3 * at::eye(rank, at::kDouble);
    factors.A_RI = at::linalg_solve(G, factors.A_RI);
    factors.B_OR = at::matmul(factors.B_OR, G);
  }
}

double Change(const AdapterState& a, const AdapterState& b) {
  double worst = 0;
  for (size_t i = 0; i < a.sites.size(); ++i) {
    worst = std::max(worst, Relative(Product(a, i), Product(b, i)));
  }
  return worst;
}

class StrategyTest : public ::testing::TestWithParam<std::string> {
 protected:
  const Strategy& strategy() const { return **FindStrategy(GetParam()); }
  // A rule that cuts by its own default is held to its exactness with nothing cut.
  StrategySettings settings() const {
    StrategySettings settings{.name = GetParam()};
    if (settings.name == "florist") settings.energy = 1;
    return settings;
  }
};

std::vector<std::string> Names() {
  std::vector<std::string> names;
  for (const Strategy* strategy : testing::ProductStrategies()) {
    names.emplace_back(strategy->name());
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Registry, StrategyTest, ::testing::ValuesIn(Names()),
                         [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST_P(StrategyTest, DefaultsPassItsCheckAndTheFreshGlobalChangesNothing) {
  EXPECT_TRUE(CheckStrategySettings(settings(), {}).ok());
  const GlobalState global = Init(strategy());
  ASSERT_EQ(global.adapter.sites.size(), Sites().size());
  for (size_t i = 0; i < Sites().size(); ++i) {
    EXPECT_EQ(MaxAbs(Product(global.adapter, i)), 0);
    EXPECT_EQ(ScalingFor(global.adapter.spec, Sites()[i].path), 1.0);
  }
}

TEST_P(StrategyTest, ArrivalOrderChangesNoBit) {
  // The whole path of a round: blobs in the order of arrival, sorted by name when opened.
  const GlobalState global = Trained(settings());
  std::vector<ReceivedUpdate> received;
  const std::vector<MemoryClient> clients = ThreeClients(settings(), global);
  for (const MemoryClient& client : clients) {
    AdapterState state;
    state.spec = client.plan.adapter;
    for (size_t i = 0; i < Sites().size(); ++i) {
      state.sites.push_back(
          {Sites()[i], {{"A", client.factors[i].A_RI}, {"B", client.factors[i].B_OR}}});
    }
    ReceivedUpdate update{{}, client.plan, *EncodeBundle({state, std::nullopt}, Float32Codec())};
    update.header.client = client.plan.client;
    update.header.spec = client.plan.adapter;
    update.header.codec = "float32";
    update.header.num_examples = 100 + client.plan.client.name.size();
    update.header.label_tokens = 1000;
    update.header.payload_bytes = update.payload.size();
    received.push_back(std::move(update));
  }
  std::vector<std::string> hashes;
  std::vector<int> order = {0, 1, 2};
  do {
    std::vector<ReceivedUpdate> arrived;
    for (const int i : order) arrived.push_back(received[static_cast<size_t>(i)]);
    const auto updates = SpooledUpdates::Open(std::move(arrived), Sites(), "examples", 0);
    ASSERT_TRUE(updates.ok()) << updates.status();
    const MergedRound merged = Merge(settings(), global, **updates);
    hashes.push_back(Sha256Hex(EncodeState(merged.global)->bytes.span()));
  } while (std::next_permutation(order.begin(), order.end()));
  for (const std::string& hash : hashes) EXPECT_EQ(hash, hashes[0]);
}

TEST_P(StrategyTest, TheNumberOfThreadsChangesNoBit) {
  // Large enough for a library to split its products over threads; and a single site, for which
  // a parallel loop has nothing to hand out.
  for (const size_t count : {1, 3}) {
    std::vector<LinearSite> sites;
    for (size_t i = 0; i < count; ++i) sites.push_back({MemoryUpdates::Path(i), 512, 384});
    const GlobalState global = *strategy().Init(LoraSpec(16, 16), sites, 3);
    const int before = at::get_num_threads();
    std::vector<std::string> hashes;
    for (const int threads : {1, 2, 4}) {
      at::set_num_threads(threads);
      const MergedRound merged = Merge(settings(), global,
                                       MemoryUpdates({Client(settings(), global, "a", 16, 16),
                                                      Client(settings(), global, "b", 8, 16)}));
      hashes.push_back(Sha256Hex(EncodeState(merged.global)->bytes.span()));
    }
    at::set_num_threads(before);
    EXPECT_EQ(hashes[0], hashes[1]) << count;
    EXPECT_EQ(hashes[0], hashes[2]) << count;
  }
}

TEST_P(StrategyTest, AGaugeChangesNothingExactlyWhereTheRuleClaimsSo) {
  if (strategy().traits().frozen_side) GTEST_SKIP() << "a frozen factor leaves no gauge free";
  const GlobalState global = Trained(settings());
  const MergedRound plain =
      Merge(settings(), global, MemoryUpdates(ThreeClients(settings(), global)));
  std::vector<MemoryClient> clients = ThreeClients(settings(), global);
  for (size_t k = 0; k < clients.size(); ++k) ChangeGauge(clients[k], k);
  const MergedRound gauged = Merge(settings(), global, MemoryUpdates(std::move(clients)));
  const double change = Change(gauged.global.adapter, plain.global.adapter);
  if (strategy().traits().gauge_free) {
    EXPECT_LE(change, 1e-5);
  } else {
    EXPECT_GT(change, 0.05) << "a rule that averages factors cannot be blind to their gauge";
  }
}

TEST_P(StrategyTest, AlphaAndBTogetherChangeNothing) {
  const GlobalState global = Trained(settings());
  const MergedRound plain =
      Merge(settings(), global, MemoryUpdates(ThreeClients(settings(), global)));
  std::vector<MemoryClient> clients = ThreeClients(settings(), global);
  clients[1].plan.adapter.alpha *= 16;
  for (LowRank& factors : clients[1].factors) factors.B_OR = factors.B_OR / 16;
  const MergedRound other = Merge(settings(), global, MemoryUpdates(std::move(clients)));
  EXPECT_LE(Change(other.global.adapter, plain.global.adapter), 1e-6);
}

TEST_P(StrategyTest, SplittingAClientInTwoChangesNothing) {
  if (!strategy().traits().weights_by_size) GTEST_SKIP() << "its weights are not of counts";
  StrategySettings alike = settings();
  alike.slots = "top";  // drawn ones are each client's own
  const GlobalState global = Trained(alike);
  const MergedRound plain = Merge(alike, global, MemoryUpdates(ThreeClients(alike, global)));
  std::vector<MemoryClient> clients = ThreeClients(alike, global);
  clients[2].weight /= 2;
  clients.push_back(clients[2]);
  clients.back().plan.client.name = "dave";
  const MergedRound split = Merge(alike, global, MemoryUpdates(std::move(clients)));
  EXPECT_LE(Change(split.global.adapter, plain.global.adapter), 1e-6);
}

TEST_P(StrategyTest, OneClientAloneIsTheGlobalAdapter) {
  const GlobalState global = Init(strategy());
  std::vector<MemoryClient> alone = {Client(settings(), global, "alice", 8, 4)};
  std::vector<at::Tensor> wanted;
  double square = 0;
  // The scaling is alpha over the planned rank, also where the layer is narrower than that.
  for (size_t i = 0; i < Sites().size(); ++i) {
    wanted.push_back(Product(alone[0].factors[i]) *
                     ScalingFor(alone[0].plan.adapter, Sites()[i].path));
    square += wanted[i].square().sum().item<double>();
  }
  alone[0].update_norm = std::sqrt(square);
  const MergedRound merged = Merge(settings(), global, MemoryUpdates(std::move(alone)));
  for (size_t i = 0; i < Sites().size(); ++i) {
    EXPECT_LE(Relative(Product(merged.global.adapter, i), wanted[i]), 1e-6);
  }
  EXPECT_NEAR(merged.certificate.client_cosines[0].second, 1, 1e-6);
}

TEST_P(StrategyTest, SavedAndRestoredBetweenRoundsItEndsWithTheSameBits) {
  GlobalState straight = Init(strategy());
  Blob saved = EncodeState(Init(strategy()))->bytes;
  for (uint64_t round = 1; round <= 4; ++round) {
    const MemoryUpdates updates(ThreeClients(settings(), straight, round));
    straight = Merge(settings(), straight, updates, round).global;
    const Result<GlobalState> restored = DecodeState(saved, GetParam());
    ASSERT_TRUE(restored.ok()) << restored.status();
    saved = EncodeState(Merge(settings(), *restored, updates, round).global)->bytes;
  }
  EXPECT_EQ(EncodeState(straight)->bytes.view(), saved.view());
}

TEST_P(StrategyTest, AnotherStrategysStateIsRefused) {
  const Blob state = EncodeState(Init(strategy()))->bytes;
  const Result<GlobalState> other = DecodeState(state, "krum");
  ASSERT_FALSE(other.ok());
  EXPECT_EQ(other.status().code(), Code::kFailedPrecondition);
  EXPECT_NE(other.status().message().find("a run keeps its strategy"), std::string::npos);
}

TEST_P(StrategyTest, HugeAndTinyScalesNeitherOverflowNorVanish) {
  for (const double scale : {1e15, 1e-15}) {
    const GlobalState global = Init(strategy(), 16);
    std::vector<MemoryClient> clients = ThreeClients(settings(), global);
    for (MemoryClient& client : clients) {
      for (LowRank& factors : client.factors) factors.B_OR = factors.B_OR * scale;
    }
    const MemoryUpdates updates(std::move(clients));
    const MergedRound merged = Merge(settings(), global, updates);
    EXPECT_LE(merged.certificate.error_before_truncation, 1e-6) << scale;
    EXPECT_LE(merged.certificate.error_published, std::sqrt(merged.certificate.tail_energy) + 1e-6)
        << scale;
    EXPECT_GT(merged.certificate.target_norm, scale) << scale;
  }
}

TEST_P(StrategyTest, WhatClientsAreSentFitsTheirPlanAndIsAllTheyAreMeasuredAgainst) {
  const GlobalState global = Trained(settings());
  for (const int64_t rank : {1, 4, 8, 20}) {
    const ClientPlan plan = PlanFor(strategy(), settings(), "x", rank, 5, kRound);
    const Result<AdapterBundle> bundle = strategy().Cut(global, plan);
    ASSERT_TRUE(bundle.ok()) << bundle.status();
    for (size_t i = 0; i < Sites().size(); ++i) {
      const Result<std::optional<LowRank>> sent = strategy().Sent(global, i, plan);
      ASSERT_TRUE(sent.ok());
      ASSERT_EQ(sent->has_value(), bundle->adapter.has_value());
      if (!bundle->adapter) continue;
      const SiteState& site = bundle->adapter->sites[i];
      EXPECT_EQ(site.Get("A").size(0), std::min({rank, Sites()[i].in, Sites()[i].out}));
      // Every slot can learn: a row of A that is zero leaves B without a gradient.
      EXPECT_GT(site.Get("A").norm(2, {1}).min().item<double>(), 1e-3);
      EXPECT_LE(MaxAbs(Product(**sent) - Product(*bundle->adapter, i)), 1e-12);
    }
    EXPECT_TRUE(bundle->adapter.has_value() || bundle->frozen.has_value());
  }
}

TEST_P(StrategyTest, ARoundInWhichNobodyTrainsChangesNothingWhereTheRuleIsExact) {
  const GlobalState global = Trained(settings());
  std::vector<MemoryClient> idle;
  for (const auto& [name, rank] : {std::pair("alice", 4), std::pair("bob", 8)}) {
    const int64_t own = strategy().traits().mixed_ranks ? rank : global.init.rank;
    const ClientPlan plan = PlanFor(strategy(), settings(), name, own, 5, kRound);
    idle.push_back(*IdleClient(strategy(), global, plan, rank));
  }
  const MergedRound merged = Merge(settings(), global, MemoryUpdates(std::move(idle)));
  if (!strategy().traits().exact) GTEST_SKIP() << "it merges what clients hold";
  EXPECT_LE(Change(merged.global.adapter, global.adapter),
            std::sqrt(merged.certificate.tail_energy) + 1e-6);
}

// Updates that come a round late, in the round after kRound: alice was asked in kRound, the others
// now.
class LateRound {
 public:
  explicit LateRound(const StrategySettings& settings)
      : older(std::make_shared<const GlobalState>(Trained(settings))),
        global(Merge(settings, *older, MemoryUpdates(ThreeClients(settings, *older))).global) {}

  // Of that client, who is not done yet, as it stands in the later round's plan.
  [[nodiscard]] MemoryClient Late(MemoryClient client) const {
    client.plan.asked = RoundId{kRound};
    client.older_global = older;
    client.discount = 0.5;
    return client;
  }

  std::shared_ptr<const GlobalState> older;
  GlobalState global;
};

bool CountsLate(const Strategy& strategy) {
  return CheckStaleness({.name = std::string(strategy.name())}, {.max_staleness = 1}).ok();
}

TEST_P(StrategyTest, WhatComesLateCountsByWhatItChangedInWhatItWasSent) {
  if (!CountsLate(strategy()) || !strategy().traits().exact) GTEST_SKIP() << "refused at the start";
  const LateRound late(settings());
  std::vector<MemoryClient> clients = ThreeClients(settings(), late.global, kRound + 1);
  clients[0] = late.Late(Client(settings(), *late.older, "alice", 4, 8, kRound, 9));
  const MemoryUpdates updates(clients);
  const MergedRound merged = Merge(settings(), late.global, updates, kRound + 1);
  for (size_t i = 0; i < Sites().size(); ++i) {
    at::Tensor target = Product(late.global.adapter, i);
    for (size_t k = 0; k < 3; ++k) {
      const GlobalState& start = k == 0 ? *late.older : late.global;
      const std::optional<LowRank> sent = *strategy().Sent(start, i, updates.plan(k));
      at::Tensor change = Product(*updates.Factors(k, i));
      if (sent) change = change - Product(*sent);
      target = target + change * (updates.weight(k) * updates.discount(k));
    }
    EXPECT_LE(Relative(Product(merged.global.adapter, i), target),
              std::sqrt(merged.certificate.sites[i].tail_energy) + 1e-6);
  }
  ASSERT_EQ(merged.certificate.client_coefficients.size(), 3u);
  EXPECT_NEAR(merged.certificate.client_coefficients[0].second, updates.weight(0) / 2, 1e-15);
  EXPECT_NEAR(merged.certificate.client_coefficients[1].second, updates.weight(1), 1e-15);
  ASSERT_EQ(merged.certificate.client_remarks.size(), 1u);
  EXPECT_EQ(merged.certificate.client_remarks[0].second, "of round 3, counts by 0.5");
}

// Measured against the newest version instead, what it holds of an older one is garbage.
TEST_P(StrategyTest, WhoComesLateAndTrainedNothingChangesNothing) {
  if (!CountsLate(strategy()) || !strategy().traits().exact) GTEST_SKIP() << "refused at the start";
  const LateRound late(settings());
  const ClientPlan asked = PlanFor(strategy(), settings(), "alice", 4, 5, kRound);
  const ClientPlan now = PlanFor(strategy(), settings(), "bob", 8, 5, kRound + 1);
  std::vector<MemoryClient> idle = {late.Late(*IdleClient(strategy(), *late.older, asked, 4)),
                                    *IdleClient(strategy(), late.global, now, 8)};
  const MergedRound merged = Merge(settings(), late.global, MemoryUpdates(idle), kRound + 1);
  EXPECT_LE(Change(merged.global.adapter, late.global.adapter),
            std::sqrt(merged.certificate.tail_energy) + 1e-6);
  idle[0].older_global = nullptr;
  idle[0].plan.asked = {};
  const MergedRound garbage = Merge(settings(), late.global, MemoryUpdates(idle), kRound + 1);
  const bool was_sent = strategy().Cut(late.global, now)->adapter.has_value();
  EXPECT_EQ(Change(garbage.global.adapter, late.global.adapter) > 0.05, was_sent);
}

TEST_P(StrategyTest, TheCertificateIsWhatAReaderOfTheLogWouldCompute) {
  const GlobalState global = Trained(settings());
  std::vector<MemoryClient> clients = ThreeClients(settings(), global);
  for (size_t k = 0; k < 3; ++k) clients[k].update_norm = 40.0 + static_cast<double>(k);
  const MemoryUpdates updates(std::move(clients));
  const MergedRound merged = Merge(settings(), global, updates);
  double distance = 0;
  double norm = 0;
  double changed = 0;
  std::vector<double> alignments(3, 0);
  for (size_t i = 0; i < Sites().size(); ++i) {
    const at::Tensor change = Product(merged.global.adapter, i) - Product(global.adapter, i);
    changed += change.square().sum().item<double>();
    at::Tensor ideal = at::zeros({Sites()[i].out, Sites()[i].in}, at::kDouble);
    for (size_t k = 0; k < 3; ++k) {
      const at::Tensor update = Product(*updates.Factors(k, i));
      ideal += update * updates.weight(k);
      const std::optional<LowRank> sent = *strategy().Sent(global, i, updates.plan(k));
      const at::Tensor own = sent ? update - Product(*sent) : update;
      alignments[k] += (own * change).sum().item<double>();
    }
    at::Tensor published = Product(merged.global.adapter, i);
    if (!strategy().Cut(global, updates.plan(0))->adapter) published -= Product(global.adapter, i);
    distance += (published - ideal).square().sum().item<double>();
    norm += ideal.square().sum().item<double>();
  }
  EXPECT_NEAR(merged.certificate.error_to_ideal, std::sqrt(distance / norm), 1e-7);
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_EQ(merged.certificate.client_norms[k].first, updates.plan(k).client.name);
    EXPECT_EQ(merged.certificate.client_norms[k].second, updates.update_norm(k));
    EXPECT_NEAR(merged.certificate.client_cosines[k].second,
                alignments[k] / (updates.update_norm(k) * std::sqrt(changed)), 1e-6);
  }
  EXPECT_LE(merged.certificate.error_before_truncation, 1e-6);
}

}  // namespace
}  // namespace weft
