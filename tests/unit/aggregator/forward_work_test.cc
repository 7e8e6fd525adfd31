// A relay's work on tensors: a tree of relays arrives where the flat federation does, whatever the
// rule, the ranks and the methods below it, and says what it cut where it may not send all.

#include "aggregator/forward_work.h"

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/algebra.h"
#include "aggregator/merge_work.h"
#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/state_block.h"
#include "common/adapters/change.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::HonestHeader;
using testing::MaxAbs;
using testing::Product;
using testing::RandomMatrix;
using testing::TwoLayers;

constexpr uint64_t kRound = 3;

struct Member {
  std::string name;
  std::string method;
  int64_t rank;
  uint64_t examples;
};

const std::vector<Member>& Members() {
  static const auto* members = new std::vector<Member>{
      {"a", "lora", 2, 30}, {"b", "lora", 4, 10}, {"c", "nola", 3, 25}, {"d", "lora", 8, 40}};
  return *members;
}

class ForwardWorkTest : public ::testing::TestWithParam<const char*> {
 protected:
  ForwardWorkTest()
      : store_({.post = [](std::function<void()> call) { call(); },
                .wall_us = [] { return int64_t{0}; },
                .fault = {}}),
        global_(testing::LoraSpec(8, 16)) {
    settings_.name = GetParam();
    global_.options.emplace_back("nola.k", "16");
    const Result<InitJob::Output> init = RunInit(
        {.strategy = settings_, .adapter = global_, .sites = TwoLayers(), .seed = 5}, control_);
    WEFT_CHECK(init.ok(), init.status());
    // A global adapter that has learned something: one round of it.
    Write("state", init->state);
    const Member first{"first", "lora", 8, 1};
    Write("state", Merge("state", {Trained(first, "state")}).state);
  }

  void Write(const std::string& name, Blob bytes) {
    store_.WriteBlob(name, std::move(bytes),
                     [](const Status& status) { WEFT_CHECK(status.ok(), status); });
  }

  const Strategy& strategy() const { return **FindStrategy(settings_.name); }

  ClientPlan PlanOf(const Member& member) const {
    AdapterSpec spec = testing::LoraSpec(member.rank, 2.0 * static_cast<double>(member.rank));
    spec.method = member.method;
    if (member.method == "nola") spec.options.emplace_back("nola.k", "16");
    spec = (*FindAdapter(member.method))->ForRound(spec, 7, kRound);
    return {ClientId{member.name}, strategy().ForRound(settings_, 8, spec, 7, kRound)};
  }

  struct Sent {
    ClientPlan plan;
    SpooledUpdate update;
  };

  // What the member sends back: what it was cut of that state, every tensor moved a little.
  Sent Trained(const Member& member, const std::string& state) {
    const ClientPlan plan = PlanOf(member);
    const Result<CutJob::Output> cut =
        RunCut({.strategy = settings_, .state = *store_.ReadBlob(state), .client = plan}, control_);
    WEFT_CHECK(cut.ok(), cut.status());
    const AdapterBundle bundle = *DecodeBundle(cut->bundle, at::kCPU);
    const Adapter& method = **FindAdapter(plan.adapter.method);
    AdapterState own =
        bundle.adapter ? *bundle.adapter : *method.Init(plan.adapter, TwoLayers(), 7);
    const std::vector<std::string> trains = method.Trainable(plan.adapter);
    for (SiteState& site : own.sites) {
      for (NamedTensor& tensor : site.tensors) {
        if (std::find(trains.begin(), trains.end(), tensor.name) == trains.end()) continue;
        const at::Tensor step =
            RandomMatrix(1, tensor.value.numel(), member.name + site.site.path + tensor.name)
                .reshape(tensor.value.sizes());
        tensor.value = tensor.value + 0.3 * step.to(at::kFloat);
      }
    }
    return Spool(plan, *EncodeUpdate(own, false, Float32Codec()), member.examples);
  }

  Sent Spool(const ClientPlan& plan, Blob payload, uint64_t examples) {
    UpdateHeader header = HonestHeader(plan, payload);
    header.num_examples = examples;
    const std::string blob = "spool/" + plan.client.name;
    Write(blob, std::move(payload));
    return {plan, {.header = header, .blob = blob, .update_norm = 1}};
  }

  MergeJob JobOf(const std::string& state, const std::vector<Sent>& updates) {
    MergeJob job{.strategy = settings_,
                 .weighting = "examples",
                 .max_examples = 1000,
                 .plan = {},
                 .state_blob = state,
                 .updates = {},
                 .store = &store_};
    job.plan.round = RoundId{kRound};
    for (const Sent& sent : updates) {
      job.plan.cohort.push_back(sent.plan);
      job.updates.push_back(sent.update);
    }
    return job;
  }

  MergeJob::Output Merge(const std::string& state, const std::vector<Sent>& updates) {
    Result<MergeJob::Output> merged = RunMerge(JobOf(state, updates), control_);
    WEFT_CHECK(merged.ok(), merged.status());
    return std::move(*merged);
  }

  // What the relay is sent, as it keeps it.
  Result<AdoptJob::Output> Adopt(const ClientPlan& relay) {
    const Result<CutJob::Output> cut = RunCut(
        {.strategy = settings_, .state = *store_.ReadBlob("state"), .client = relay}, control_);
    WEFT_CHECK(cut.ok(), cut.status());
    return RunAdopt({.strategy = settings_.name,
                     .adapter = global_,
                     .sites = TwoLayers(),
                     .bundle = cut->bundle},
                    control_);
  }

  ClientPlan RelayPlan(const std::string& name, int64_t rank, size_t members) const {
    return {ClientId{name}, ChangeSpec(global_, rank, "examples", static_cast<int64_t>(members))};
  }

  // The relay's answer for these members, and its plan.
  ForwardJob::Output Forward(const ClientPlan& relay, const std::vector<Member>& members) {
    const Result<AdoptJob::Output> adopted = Adopt(relay);
    WEFT_CHECK(adopted.ok(), adopted.status());
    Write("relay-state", adopted->state);
    std::vector<Sent> updates;
    for (const Member& member : members) updates.push_back(Trained(member, "relay-state"));
    Result<ForwardJob::Output> output = RunForward(
        {.round = JobOf("relay-state", updates), .spec = relay.adapter, .rank = limit_}, control_);
    WEFT_CHECK(output.ok(), output.status());
    return std::move(*output);
  }

  Sent Relay(const std::string& name, int64_t rank, const std::vector<Member>& members) {
    const ClientPlan plan = RelayPlan(name, rank, members.size());
    ForwardJob::Output output = Forward(plan, members);
    return Spool(plan, output.payload, output.header.num_examples);
  }

  // Largest difference between the two global adapters' products, over the largest entry.
  static double Difference(const Blob& x, const Blob& y) {
    const GlobalState a = *DecodeState(x, "");
    const GlobalState b = *DecodeState(y, "");
    double difference = 0;
    for (size_t i = 0; i < TwoLayers().size(); ++i) {
      const at::Tensor wanted = Product(b.adapter, i);
      difference = std::max(difference, MaxAbs(Product(a.adapter, i) - wanted) / MaxAbs(wanted));
    }
    return difference;
  }

  JobControl control_;
  MemoryStore store_;
  StrategySettings settings_;
  AdapterSpec global_;
  int64_t limit_ = 0;  // relay.rank
};

TEST_P(ForwardWorkTest, ATreeOfRelaysArrivesWhereTheFlatFederationDoes) {
  const std::vector<Member>& all = Members();
  std::vector<Sent> flat;
  for (const Member& member : all) flat.push_back(Trained(member, "state"));
  const Blob wanted = Merge("state", flat).state;
  const Sent north = Relay("north", 2 + 4 + 8, {all[0], all[1]});  // their ranks and the global's
  const Sent south = Relay("south", 3 + 8 + 8, {all[2], all[3]});
  EXPECT_LT(Difference(Merge("state", {north, south}).state, wanted), 2e-6);
  // A relay beside a client of its own.
  EXPECT_LT(Difference(Merge("state", {flat[0], flat[1], south}).state, wanted), 2e-6);
}

// A relay of two relays, by the first of which it is sent what it sends on.
TEST_P(ForwardWorkTest, SoDoesATreeOfThreeLevels) {
  const std::vector<Member>& all = Members();
  std::vector<Sent> flat;
  for (const Member& member : all) flat.push_back(Trained(member, "state"));
  const Blob wanted = Merge("state", flat).state;
  const ClientPlan top = RelayPlan("top", 2 + 4 + 3 + 8 + 8, 4);
  const Sent north = Relay("north", 2 + 4 + 8, {all[0], all[1]});  // their ranks and the global's
  const Sent south = Relay("south", 3 + 8 + 8, {all[2], all[3]});
  const Result<ForwardJob::Output> output =
      RunForward({.round = JobOf("relay-state", {north, south}), .spec = top.adapter}, control_);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->header.num_examples, 105u);
  EXPECT_EQ(output->header.metrics.front(), std::make_pair(std::string("members"), 4.0));
  EXPECT_LT(Difference(Merge("state", {Spool(top, output->payload, 105)}).state, wanted), 2e-6);
}

TEST_P(ForwardWorkTest, WhatIsCutIsSaid) {
  const std::vector<Member>& all = Members();
  const ForwardJob::Output whole = Forward(RelayPlan("north", 20, 2), {all[1], all[3]});
  EXPECT_LT(whole.error, 1e-6);
  const ForwardJob::Output cut = Forward(RelayPlan("north", 2, 2), {all[1], all[3]});
  double lost = 0;
  double square = 0;
  const LowRankAdapter all_of_it = *Lower(*DecodeBundle(whole.payload, at::kCPU)->adapter);
  const LowRankAdapter some = *Lower(*DecodeBundle(cut.payload, at::kCPU)->adapter);
  for (size_t i = 0; i < TwoLayers().size(); ++i) {
    const at::Tensor wanted = Product(all_of_it[i].factors);
    lost += (wanted - Product(some[i].factors)).square().sum().item<double>();
    square += wanted.square().sum().item<double>();
  }
  EXPECT_GT(cut.error, 0.05);
  EXPECT_NEAR(cut.error, std::sqrt(lost / square), 1e-5);
  // As relay.rank cuts it, in factors of the rank that was asked for.
  limit_ = 2;
  const ForwardJob::Output limited = Forward(RelayPlan("north", 20, 2), {all[1], all[3]});
  EXPECT_NEAR(limited.error, cut.error, 1e-9);
  EXPECT_LT(limited.payload.size(), whole.payload.size() / 2);
}

TEST_P(ForwardWorkTest, TheHeaderIsThatOfOneClientWithAllTheRows) {
  const ForwardJob::Output output =
      Forward(RelayPlan("north", 12, 2), {Members()[0], {"b", "lora", 4, 5000}});
  EXPECT_EQ(output.header.num_examples, 30u + 1000u) << "each member counts at most max-examples";
  EXPECT_EQ(output.header.payload_bytes, output.payload.size());
  EXPECT_EQ(output.header.metrics.front(), std::make_pair(std::string("members"), 2.0));
  EXPECT_TRUE(std::isfinite(output.header.train_loss));
}

TEST_P(ForwardWorkTest, WhoChangesNothingLeavesTheGlobalAdapterAsItIs) {
  const ClientPlan relay = RelayPlan("north", 12, 1);
  const Result<AdoptJob::Output> adopted = Adopt(relay);
  ASSERT_TRUE(adopted.ok()) << adopted.status();
  Write("relay-state", adopted->state);
  const ClientPlan plan = PlanOf(Members()[1]);
  const Result<CutJob::Output> cut =
      RunCut({.strategy = settings_, .state = adopted->state, .client = plan}, control_);
  ASSERT_TRUE(cut.ok());
  const AdapterBundle bundle = *DecodeBundle(cut->bundle, at::kCPU);
  const AdapterState own = bundle.adapter
                               ? *bundle.adapter
                               : *(*FindAdapter("lora"))->Init(plan.adapter, TwoLayers(), 7);
  const Sent sent = Spool(plan, *EncodeUpdate(own, false, Float32Codec()), 10);
  const Result<ForwardJob::Output> output =
      RunForward({.round = JobOf("relay-state", {sent}), .spec = relay.adapter}, control_);
  ASSERT_TRUE(output.ok()) << output.status();
  const Blob payload = output->payload;
  EXPECT_LT(
      Difference(Merge("state", {Spool(relay, payload, 10)}).state, *store_.ReadBlob("state")),
      2e-6);
  // It is an update like any other, although there is nothing in it.
  const Result<AdmitJob::Output> admitted = RunAdmit(
      {.client = relay,
       .header = HonestHeader(relay, payload),
       .sites = TwoLayers(),
       .blob = "spool/north",
       .bundle =
           RunCut({.strategy = settings_, .state = *store_.ReadBlob("state"), .client = relay},
                  control_)
               ->bundle,
       .store = &store_},
      control_);
  ASSERT_TRUE(admitted.ok()) << admitted.status();
  EXPECT_TRUE(admitted->verdict.ok()) << admitted->verdict;
}

TEST_P(ForwardWorkTest, WhatIsNoGlobalAdapterOfTheRunIsNotAdopted) {
  const ClientPlan relay = RelayPlan("north", 12, 1);
  const Blob bundle =
      RunCut({.strategy = settings_, .state = *store_.ReadBlob("state"), .client = relay}, control_)
          ->bundle;
  AdoptJob job{
      .strategy = settings_.name, .adapter = global_, .sites = {TwoLayers()[0]}, .bundle = bundle};
  EXPECT_EQ(RunAdopt(job, control_).status().code(), Code::kFailedPrecondition);
  job.sites = {TwoLayers()[0], {"layers.1.k_proj", 9, 30}};
  EXPECT_NE(RunAdopt(job, control_).status().message().find("layers.1.q_proj"), std::string::npos)
      << RunAdopt(job, control_).status();
  job.sites = TwoLayers();
  job.bundle = bundle.Slice(0, bundle.size() / 2);
  EXPECT_FALSE(RunAdopt(job, control_).ok());
  // What a client starts from is not the whole of it.
  AdapterBundle cut = *DecodeBundle(bundle, at::kCPU);
  cut.adapter = cut.frozen;
  job.bundle = *EncodeBundle(cut, Float32Codec());
  EXPECT_EQ(RunAdopt(job, control_).status().code(), Code::kInvalidArgument);
}

INSTANTIATE_TEST_SUITE_P(Rules, ForwardWorkTest, ::testing::Values("exact-svd", "flora", "florist"),
                         [](const auto& rule) {
                           std::string name = rule.param;
                           std::erase(name, '-');
                           return name;
                         });

// Clients are weighed by their rows, at most max-examples of each: a relay's by its members'.
TEST(RelayWeightTest, ARelayCountsForAsManyAsItRelays) {
  UpdateHeader client;
  client.num_examples = 5000;
  UpdateHeader relay;
  relay.spec = ChangeSpec(testing::LoraSpec(8, 16), 4, "examples", 3);
  relay.num_examples = 2500;
  const std::vector<double> weights = *ClientWeights({client, relay}, "examples", 1000);
  EXPECT_NEAR(weights[0], 1000.0 / 3500, 1e-12);
  EXPECT_NEAR(weights[1], 2500.0 / 3500, 1e-12);
  relay.num_examples = 9000;
  EXPECT_NEAR((*ClientWeights({client, relay}, "examples", 1000))[1], 3000.0 / 4000, 1e-12);
}

}  // namespace
}  // namespace weft
