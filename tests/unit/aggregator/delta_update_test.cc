// Updates that are what changed in what was sent: admitted, merged and refused.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "aggregator/merge_work.h"
#include "aggregator/sent_adapter.h"
#include "aggregator/strategies/state_block.h"
#include "common/codec/delta.h"
#include "common/codec/precision.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

using testing::HonestHeader;
using testing::MaxAbs;
using testing::MemoryUpdates;
using testing::Product;

const std::vector<LinearSite>& Sites() {
  static const auto* sites = new std::vector<LinearSite>{{MemoryUpdates::Path(0), 12, 10},
                                                         {MemoryUpdates::Path(1), 16, 9}};
  return *sites;
}

class DeltaUpdateTest : public ::testing::TestWithParam<std::string> {
 protected:
  DeltaUpdateTest()
      : store_({.post = [](std::function<void()> call) { call(); },
                .wall_us = [] { return int64_t{0}; },
                .fault = {}}) {
    settings_.name = GetParam();
    const Result<InitJob::Output> init = RunInit(
        {.strategy = settings_, .adapter = testing::LoraSpec(8, 16), .sites = Sites(), .seed = 5},
        control_);
    WEFT_CHECK(init.ok(), init.status());
    Write("state", init->state);
    // A round, so that what is sent next is not nothing.
    Merge(Cohort(), /*delta=*/false, "first");
    Write("state", merged_.state);
  }

  std::vector<ClientPlan> Cohort() const {
    const bool mixed = GetParam() == "exact-svd" || GetParam() == "flora";
    return {Plan("a", mixed ? 2 : 8), Plan("b", 8), Plan("c", mixed ? 4 : 8)};
  }
  static ClientPlan Plan(const std::string& name, int64_t rank) {
    return {ClientId{name}, testing::LoraSpec(rank, 2.0 * static_cast<double>(rank))};
  }
  void Write(const std::string& name, Blob bytes) {
    store_.WriteBlob(name, std::move(bytes), [](Status status) { WEFT_CHECK(status.ok()); });
  }
  Blob Bundle(const ClientPlan& plan) {
    const CutJob cut{
        .strategy = settings_, .state = *store_.ReadBlob("state"), .client = plan, .codec = down_};
    return RunCut(cut, control_)->bundle;
  }
  std::optional<AdapterState> Sent(const ClientPlan& plan) {
    return DecodeBundle(Bundle(plan), at::kCPU)->adapter;
  }
  AdapterState Trained(const ClientPlan& plan, const std::string& label) {
    const Adapter* method = *FindAdapter("lora");
    std::optional<AdapterState> sent = Sent(plan);
    AdapterState state = sent ? *sent : *method->Init(plan.adapter, Sites(), 3);
    for (SiteState& site : state.sites) {
      const std::string own = label + plan.client.name + site.site.path;
      at::Tensor& B = site.Get("B");
      B = B + step_ * testing::RandomMatrix(B.size(0), B.size(1), own).to(at::kFloat);
    }
    return state;
  }
  Blob Payload(const ClientPlan& plan, bool delta, const std::string& label) {
    const AdapterState trained = Trained(plan, label);
    const std::optional<AdapterState> sent = Sent(plan);
    if (!delta || !sent) return *EncodeUpdate(trained, false, Float32Codec());
    return *EncodeUpdate(*ChangeOf(trained, *sent), true, Float32Codec());
  }
  AdmitJob Admission(const ClientPlan& plan, const Blob& payload, bool delta) {
    Write("update", payload);
    return {.client = plan,
            .header = HonestHeader(plan, payload),
            .sites = Sites(),
            .blob = "update",
            .bundle = Bundle(plan),
            .store = &store_,
            .delta = delta};
  }
  void Merge(const std::vector<ClientPlan>& cohort, bool delta, const std::string& label) {
    MergeJob job{.strategy = settings_,
                 .weighting = "examples",
                 .max_examples = 0,
                 .plan = {},
                 .state_blob = "state",
                 .updates = {},
                 .store = &store_};
    job.plan.cohort = cohort;
    job.plan.delta = delta;
    job.plan.down_codec = down_;
    for (const ClientPlan& plan : cohort) {
      const Blob payload = Payload(plan, delta, label);
      const Result<AdmitJob::Output> admitted = RunAdmit(Admission(plan, payload, delta), control_);
      WEFT_CHECK(admitted.ok() && admitted->verdict.ok(), admitted->verdict);
      Write("spool/" + plan.client.name, payload);
      job.updates.push_back(
          {HonestHeader(plan, payload), "spool/" + plan.client.name, admitted->update_norm});
    }
    Result<MergeJob::Output> merged = RunMerge(job, control_);
    WEFT_CHECK(merged.ok(), merged.status());
    merged_ = std::move(*merged);
  }
  AdapterState Global() { return DecodeState(merged_.state, GetParam())->adapter; }
  Status Verdict(const AdmitJob& job) { return RunAdmit(job, control_)->verdict; }

  StrategySettings settings_;
  std::string down_ = "float32";
  double step_ = 1;  // of what clients train
  JobControl control_;
  MemoryStore store_;
  MergeJob::Output merged_;
};

TEST_P(DeltaUpdateTest, MergeToWhatWholeUpdatesMergeTo) {
  Merge(Cohort(), false, "second");
  const AdapterState whole = Global();
  const Certificate certificate = merged_.certificate;
  Merge(Cohort(), true, "second");
  const AdapterState delta = Global();
  for (size_t i = 0; i < Sites().size(); ++i) {
    EXPECT_LE(MaxAbs(Product(delta, i) - Product(whole, i)), 1e-5 * MaxAbs(Product(whole, i)));
  }
  for (size_t k = 0; k < 3; ++k) {
    EXPECT_NEAR(merged_.certificate.client_norms[k].second, certificate.client_norms[k].second,
                1e-4 * certificate.client_norms[k].second);
  }
}

TEST_P(DeltaUpdateTest, WhatTheMergeCutsAgainIsWhatTheClientDecoded) {
  const GlobalState global = *DecodeState(*store_.ReadBlob("state"), GetParam());
  SentAdapters sent(**FindStrategy(GetParam()));
  for (const ClientPlan& plan : Cohort()) {
    const std::shared_ptr<const AdapterState> again = *sent.For(global, plan);
    const std::optional<AdapterState> decoded = Sent(plan);
    ASSERT_EQ(again != nullptr, decoded.has_value());
    if (!decoded) continue;
    EXPECT_EQ(*AdapterSha256(*again), *AdapterSha256(*decoded));
    EXPECT_EQ(*sent.For(global, plan), again) << "cut once";
  }
}

TEST_P(DeltaUpdateTest, ARoundedDownlinkIsCertified) {
  down_ = "nf4";
  Merge(Cohort(), true, "second");
  const double error = merged_.certificate.error_codec;
  EXPECT_GT(error, 0.03);
  EXPECT_LT(error, 0.3);
  EXPECT_NEAR(error, *CodecError(Global(), **FindCodec("nf4")), 1e-12);
  down_ = "float32";
  Merge(Cohort(), true, "second");
  EXPECT_EQ(merged_.certificate.error_codec, 0);
}

// Clients that return what they got, however coarsely it came, leave the global adapter as it is.
TEST_P(DeltaUpdateTest, ARoundedDownlinkIsNotMerged) {
  if (GetParam() == "flora") GTEST_SKIP() << "its clients start afresh";
  const AdapterState before = DecodeState(*store_.ReadBlob("state"), GetParam())->adapter;
  for (const char* codec : {"bfloat16", "int8", "nf4"}) {
    down_ = codec;
    step_ = 0;
    Merge(Cohort(), true, "nothing");
    for (size_t i = 0; i < Sites().size(); ++i) {
      EXPECT_LE(MaxAbs(Product(Global(), i) - Product(before, i)),
                1e-5 * MaxAbs(Product(before, i)))
          << codec;
    }
  }
}

TEST_P(DeltaUpdateTest, AWholeUpdateWhereADeltaIsWantedIsRefusedAndTheReverse) {
  const ClientPlan plan = Cohort()[1];
  const bool sent = Sent(plan).has_value();  // flora's clients start from nothing they were sent
  const AdapterState trained = Trained(plan, "x");
  const Status whole =
      Verdict(Admission(plan, *EncodeUpdate(trained, false, Float32Codec()), true));
  EXPECT_EQ(whole.ok(), !sent) << whole;
  if (sent) {
    EXPECT_EQ(whole.code(), Code::kInvalidArgument);
    EXPECT_NE(whole.message().find("client b round 1: the update is a whole adapter"),
              std::string::npos)
        << whole;
  }
  const Status delta =
      Verdict(Admission(plan, *EncodeUpdate(trained, true, Float32Codec()), false));
  EXPECT_EQ(delta.code(), Code::kInvalidArgument);
  EXPECT_NE(delta.message().find("is a delta, the plan wants a whole adapter"), std::string::npos)
      << delta;
}

TEST_P(DeltaUpdateTest, NoChangeIsAnUpdateOfNormZero) {
  const ClientPlan plan = Cohort()[1];
  const std::optional<AdapterState> sent = Sent(plan);
  if (!sent) GTEST_SKIP() << "starts afresh";
  const Blob nothing = *EncodeUpdate(*ChangeOf(*sent, *sent), true, Float32Codec());
  EXPECT_LT(nothing.size(), 700u);
  const Result<AdmitJob::Output> output = RunAdmit(Admission(plan, nothing, true), control_);
  EXPECT_TRUE(output->verdict.ok()) << output->verdict;
  EXPECT_EQ(output->update_norm, 0);
}

INSTANTIATE_TEST_SUITE_P(Strategies, DeltaUpdateTest,
                         ::testing::Values("exact-svd", "fedavg", "flora"), [](const auto& test) {
                           std::string name = test.param;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace weft
