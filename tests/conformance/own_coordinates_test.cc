// What every strategy that merges in the methods' own coordinates promises, for every method that
// has such a merge.

#include <algorithm>

#include <gtest/gtest.h>

#include "aggregator/merge_work.h"
#include "aggregator/spooled_updates.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "common/codec/precision.h"
#include "common/crypto/digest.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::LoraSpec;
using testing::RandomMatrix;

// Four layers of one type, so that methods that share have something to share.
const std::vector<LinearSite>& Sites() {
  static const auto* sites = [] {
    auto* made = new std::vector<LinearSite>();
    for (size_t i = 0; i < 4; ++i) made->push_back({testing::MemoryUpdates::Path(i), 24, 20});
    return made;
  }();
  return *sites;
}

AdapterSpec SpecOf(const Adapter& method, uint64_t round) {
  AdapterSpec spec = LoraSpec(4, 8);
  spec.method = method.name();
  if (spec.method == "nola") spec.options = {{"nola.k", "6"}, {"nola.rounds", "alternate"}};
  return method.ForRound(spec, 3, round);
}

struct Case {
  const Strategy* strategy;
  const Adapter* method;
};

std::vector<Case> Cases() {
  std::vector<Case> cases;
  for (const Strategy* strategy : StrategyRegistry()) {
    if (!strategy->traits().own_coordinates) continue;
    for (const Adapter* method : AdapterRegistry()) {
      if (!method->CheckMerges(SpecOf(*method, 1)).ok()) continue;
      if (strategy->Init(SpecOf(*method, 1), Sites(), 3).ok()) cases.push_back({strategy, method});
    }
  }
  return cases;
}

class OwnCoordinatesTest : public ::testing::TestWithParam<Case> {
 protected:
  const Strategy& strategy() const { return *GetParam().strategy; }
  const Adapter& method() const { return *GetParam().method; }
  StrategySettings settings() const { return {.name = std::string(strategy().name())}; }

  GlobalState Init() const {
    Result<GlobalState> global = strategy().Init(SpecOf(method(), 1), Sites(), 3);
    WEFT_CHECK(global.ok(), global.status());
    return std::move(global).value();
  }

  ClientPlan Plan(const std::string& name, uint64_t round) const {
    return {ClientId{name}, SpecOf(method(), round)};
  }

  // What a client sends back: what it was sent, with random numbers in what it may train.
  AdapterState Trained(const GlobalState& global, const ClientPlan& plan, uint64_t seed) const {
    AdapterState state = *strategy().Cut(global, plan)->adapter;
    const std::vector<std::string> trainable = method().Trainable(plan.adapter);
    uint64_t number = 0;
    MapTensors(state.sites, [&](const NamedTensor& tensor) {
      ++number;
      if (std::find(trainable.begin(), trainable.end(), tensor.name) == trainable.end()) {
        return tensor.value;
      }
      const at::Tensor values =
          RandomMatrix(1, tensor.value.numel(), plan.client.name, 1000 * seed + number);
      return values.view(tensor.value.sizes()).to(at::kFloat);
    });
    return state;
  }

  struct Sent {
    std::string name;
    uint64_t examples;
    uint64_t seed;
  };

  MergedRound Merge(const GlobalState& global, uint64_t round,
                    const std::vector<Sent>& clients) const {
    std::vector<ReceivedUpdate> received;
    for (const Sent& client : clients) {
      const ClientPlan plan = Plan(client.name, round);
      const AdapterState state = Trained(global, plan, client.seed);
      ReceivedUpdate update{{}, plan, *EncodeBundle({state, std::nullopt}, Float32Codec())};
      update.header = testing::HonestHeader(plan, update.payload);
      update.header.num_examples = client.examples;
      // As from a spool: read anew, piece by piece.
      update.read = [payload = update.payload](uint64_t offset, uint64_t length) -> Result<Blob> {
        return payload.Slice(offset, length);
      };
      received.push_back(std::move(update));
    }
    const auto updates = SpooledUpdates::Open(std::move(received), Sites(), "examples", 0);
    WEFT_CHECK(updates.ok(), updates.status());
    JobControl control;
    Result<MergedRound> merged = MergeRound(strategy(), {settings(), global, **updates}, control);
    WEFT_CHECK(merged.ok(), merged.status());
    return std::move(merged).value();
  }

  Status Verdict(const ClientPlan& plan, const GlobalState& global, const AdapterState& state,
                 const Codec& codec) const {
    MemoryStore store({.post = [](std::function<void()> call) { call(); },
                       .wall_us = [] { return int64_t{0}; },
                       .fault = {}});
    const Blob payload = *EncodeBundle({state, std::nullopt}, codec);
    store.WriteBlob("update", payload, [](const Status&) {});
    AdmitJob job{.client = plan,
                 .header = testing::HonestHeader(plan, payload),
                 .sites = Sites(),
                 .blob = "update",
                 .bundle = *EncodeBundle(*strategy().Cut(global, plan), Float32Codec()),
                 .store = &store};
    job.header.codec = codec.name();
    JobControl control;
    const Result<AdmitJob::Output> admitted = RunAdmit(job, control);
    return admitted.ok() ? admitted->verdict : admitted.status();
  }

  static std::string Bits(const MergedRound& merged) {
    return Sha256Hex(EncodeState(merged.global)->bytes.span());
  }

  std::vector<Sent> Three() const { return {{"alice", 30, 1}, {"bob", 10, 2}, {"carol", 60, 3}}; }
};

INSTANTIATE_TEST_SUITE_P(Registry, OwnCoordinatesTest, ::testing::ValuesIn(Cases()),
                         [](const auto& test) {
                           std::string name = std::string(test.param.strategy->name()) + "_" +
                                              std::string(test.param.method->name());
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

TEST(OwnCoordinatesRegistryTest, HasMethods) { EXPECT_GE(Cases().size(), 5u); }

TEST(OwnCoordinatesRegistryTest, FedSbAveragesCoresAlone) {
  const Strategy& strategy = **FindStrategy("fed-sb");
  const Status status = strategy.Init(LoraSpec(4, 8), Sites(), 3).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("lora-xs"), std::string::npos) << status;
}

TEST_P(OwnCoordinatesTest, BeginsAsTheBaseModelAndSendsAnAdapterOfTheMethod) {
  EXPECT_TRUE(CheckStrategySettings(settings(), {}).ok());
  const GlobalState global = Init();
  const LowRankAdapter factors = *Lower(global.adapter);
  for (const LowRankSite& site : factors) {
    EXPECT_EQ(testing::MaxAbs(testing::Product(site.factors)), 0);
  }
  const ClientPlan plan = Plan("alice", 1);
  const AdapterBundle bundle = *strategy().Cut(global, plan);
  ASSERT_TRUE(bundle.adapter.has_value());
  EXPECT_EQ(bundle.adapter->spec, plan.adapter);
}

TEST_P(OwnCoordinatesTest, TheSumIsExactBeforeItIsCutAndTheDownloadAsSmallAsAnUpload) {
  GlobalState global = Init();
  for (uint64_t round = 1; round <= 3; ++round) {
    const MergedRound merged = Merge(global, round, Three());
    EXPECT_LE(merged.certificate.error_before_truncation, 1e-6) << round;
    EXPECT_LT(merged.certificate.error_published, 1) << round;
    EXPECT_EQ(merged.certificate.client_norms.size(), 3u);
    global = merged.global;
    EXPECT_EQ(global.adapter.spec.method, method().name());
    const ClientPlan plan = Plan("alice", round + 1);
    const Blob down = *EncodeBundle(*strategy().Cut(global, plan), Float32Codec());
    const Blob up = *EncodeBundle({Trained(global, plan, 1), std::nullopt}, Float32Codec());
    EXPECT_LE(down.size(), up.size() + up.size() / 50 + 64) << round;
  }
}

TEST_P(OwnCoordinatesTest, OneClientAloneIsTheGlobalAdapter) {
  const MergedRound merged = Merge(Init(), 1, {{"alice", 30, 1}});
  EXPECT_LE(merged.certificate.error_published, 1e-6);
  EXPECT_LE(merged.certificate.error_to_ideal, 1e-6);
}

TEST_P(OwnCoordinatesTest, OrderThreadsAndARestartChangeNoBit) {
  const GlobalState global = Init();
  const std::string wanted = Bits(Merge(global, 1, Three()));
  std::vector<Sent> clients = Three();
  std::reverse(clients.begin(), clients.end());
  EXPECT_EQ(Bits(Merge(global, 1, clients)), wanted);
  const int before = at::get_num_threads();
  at::set_num_threads(3);
  EXPECT_EQ(Bits(Merge(global, 1, Three())), wanted);
  at::set_num_threads(before);
  const Result<GlobalState> restored = DecodeState(EncodeState(global)->bytes, strategy().name());
  ASSERT_TRUE(restored.ok()) << restored.status();
  EXPECT_EQ(Bits(Merge(*restored, 1, Three())), wanted);
}

TEST_P(OwnCoordinatesTest, SplittingAClientInTwoChangesNothing) {
  const GlobalState global = Init();
  const LowRankAdapter plain = *Lower(Merge(global, 1, {{"alice", 30, 1}}).global.adapter);
  // The same numbers twice: a client's name is what its numbers are drawn from.
  const ClientPlan plan = Plan("alice", 1);
  const AdapterState state = Trained(global, plan, 1);
  const std::vector<AdapterUpdate> halves = {{&state, 0.25}, {&state, 0.75}};
  const Result<Adapter::Merged> merged = method().Merge(halves, plan.adapter, 0);
  ASSERT_TRUE(merged.ok()) << merged.status();
  const LowRankAdapter split = *Lower(merged->state);
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_LE(
        testing::Relative(testing::Product(split[i].factors), testing::Product(plain[i].factors)),
        1e-5);
  }
}

TEST_P(OwnCoordinatesTest, WhatIsNotTrainedMustComeBackAsItWasSent) {
  const ClientPlan plan = Plan("alice", 1);
  const GlobalState global = Init();
  const std::vector<std::string> trainable = method().Trainable(plan.adapter);
  AdapterState state = Trained(global, plan, 1);
  std::string changed;
  for (NamedTensor& tensor : state.sites[2].tensors) {
    if (std::find(trainable.begin(), trainable.end(), tensor.name) != trainable.end()) continue;
    tensor.value = tensor.value + 1;
    changed = tensor.name;
  }
  const Status verdict = Verdict(plan, global, state, Float32Codec());
  EXPECT_EQ(verdict.ok(), changed.empty()) << verdict;
  EXPECT_NE(verdict.message().find(changed), std::string::npos) << verdict;
  // What a codec makes of it is no change.
  for (const Codec* codec : CodecRegistry()) {
    const Status honest = Verdict(plan, global, Trained(global, plan, 1), *codec);
    EXPECT_TRUE(honest.ok()) << codec->name() << honest;
  }
}

TEST(OwnCoordinatesRefusalTest, MethodsWithoutASumOfTheirOwnAreRefusedAtTheStart) {
  const Strategy& native = **FindStrategy("native");
  for (const char* name : {"lora", "roselora", "nola"}) {
    AdapterSpec spec = LoraSpec(4, 8);
    spec.method = name;
    const Result<GlobalState> global = native.Init(spec, Sites(), 3);
    ASSERT_FALSE(global.ok()) << name;
    EXPECT_NE(global.status().message().find(name), std::string::npos) << global.status();
  }
}

}  // namespace
}  // namespace weft
