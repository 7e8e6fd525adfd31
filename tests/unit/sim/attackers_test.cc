// Who attacks, and that what is shipped passes for an update: its header fits its payload.

#include "sim/attackers.h"

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "common/adapters/distance.h"
#include "common/codec/adapter_block.h"
#include "common/crypto/digest.h"

namespace weft::sim {
namespace {

const ClientId kHonest{"a"}, kFirst{"y"}, kSecond{"z"};

AdapterSpec Spec() {
  AdapterSpec spec;
  spec.method = "lora";
  spec.rank = 2;
  spec.alpha = 4;
  spec.target_modules = {"all-linear"};
  return spec;
}

// An adapter on one layer of 6×5 whose B holds `value`.
AdapterState Adapter(double value) {
  LinearSite site;
  site.path = "layers.0.q_proj";
  site.out = 6;
  site.in = 5;
  AdapterState state = *(*FindAdapter("lora"))->Init(Spec(), std::vector<LinearSite>{site}, 1);
  state.sites[0].Get("B").fill_(value);
  return state;
}

Blob Encoded(const AdapterState& state) {
  AdapterBundle bundle;
  bundle.adapter = state;
  return *EncodeBundle(bundle, **FindCodec("float32"));
}

TrainJob JobFor(const ClientId& client) {
  TrainJob job;
  job.client = client;
  job.plan.round = RoundId{3};
  job.plan.codec = "float32";
  job.plan.cohort = {{client, Spec()}};
  job.bundle = Encoded(Adapter(1));
  return job;
}

// Honest training moves B from the 1 that was sent to 2.
Result<TrainJob::Output> Honest(const TrainJob& job, JobControl&) {
  TrainJob::Output output;
  output.payload = Encoded(Adapter(2));
  output.header = HeaderOf(job, output.payload);
  output.header.spec = Spec();
  output.header.num_examples = 7;
  output.local_state = Blob::Copy(std::string_view("kept"));
  return output;
}

AttackPlan Plan(AttackKind kind, double scale) {
  return {.kind = kind, .scale = scale, .attackers = {kFirst, kSecond}};
}

TrainJob::Output Ship(const AttackPlan& plan, const ClientId& client) {
  Attackers attackers(plan, Honest);
  JobControl control;
  Result<TrainJob::Output> output = attackers.Train(JobFor(client), control);
  EXPECT_TRUE(output.ok()) << output.status();
  return output.ok() ? *output : TrainJob::Output{};
}

AdapterState Read(const TrainJob::Output& output) {
  return *DecodeBundle(output.payload, at::kCPU)->adapter;
}

TEST(AttackersTest, OthersAreHonestToTheByte) {
  JobControl control;
  const TrainJob::Output wanted = *Honest(JobFor(kHonest), control);
  const TrainJob::Output got = Ship(Plan(AttackKind::kSignFlip, 10), kHonest);
  EXPECT_EQ(got.header, wanted.header);
  EXPECT_EQ(got.payload.view(), wanted.payload.view());
}

TEST(AttackersTest, AMeasurementIsAnsweredHonestly) {
  Attackers attackers(Plan(AttackKind::kSignFlip, 10), Honest);
  JobControl control;
  TrainJob job = JobFor(kFirst);
  job.plan.training.objective = kMeasureObjective;
  const Result<TrainJob::Output> output = attackers.Train(job, control);
  ASSERT_TRUE(output.ok()) << output.status();
  EXPECT_EQ(output->payload.view(), Encoded(Adapter(2)).view());
}

TEST(AttackersTest, AFlippedUpdateIsMirroredAtWhatWasSentAndItsHeaderIsTrue) {
  const TrainJob::Output output = Ship(Plan(AttackKind::kSignFlip, 3), kSecond);
  // 1 − 3·(2 − 1) = −2: all have the same A.
  const LowRankAdapter got = *Lower(Read(output)), wanted = *Lower(Adapter(-2));
  EXPECT_LT(DistanceBetween(got, wanted), 1e-5 * DistanceBetween(wanted, {}));
  EXPECT_EQ(output.header.payload_bytes, output.payload.size());
  EXPECT_EQ(output.header.payload_sha256, Sha256Hex(output.payload.span()));
  EXPECT_EQ(output.header.spec, Spec());
  EXPECT_EQ(output.header.num_examples, 7u);
  EXPECT_EQ(output.header.client, kSecond);
  EXPECT_EQ(output.local_state.view(), "kept");
}

TEST(AttackersTest, EverySecondInflatedRankIsClaimedInTheHeader) {
  const TrainJob::Output loud = Ship(Plan(AttackKind::kRankInflation, 2), kFirst);
  EXPECT_EQ(loud.header.spec.rank, 4);
  EXPECT_EQ(Read(loud).spec.rank, 4);
  const TrainJob::Output quiet = Ship(Plan(AttackKind::kRankInflation, 2), kSecond);
  EXPECT_EQ(quiet.header.spec, Spec());
  EXPECT_GT(quiet.payload.size(), Encoded(Adapter(2)).size());
  EXPECT_FALSE(DecodeBundle(quiet.payload, at::kCPU).ok()) << "its spec is not its shape";
}

TEST(AttackersTest, ColludersShipForThemselves) {
  for (const AttackKind kind : {AttackKind::kAlie, AttackKind::kInnerProduct, AttackKind::kSybil}) {
    const TrainJob::Output first = Ship(Plan(kind, 1), kFirst),
                           second = Ship(Plan(kind, 1), kSecond);
    EXPECT_EQ(first.header.client, kFirst);
    EXPECT_EQ(second.header.client, kSecond);
    EXPECT_EQ(first.payload.view(), second.payload.view()) << "they know the same";
  }
}

TEST(AttackersTest, WhatTheCodecCannotHoldFailsTheAttackersRound) {
  Attackers attackers(Plan(AttackKind::kGaugeBomb, 1e9), Honest);
  JobControl control;
  TrainJob job = JobFor(kFirst);
  job.plan.codec = "float16";
  EXPECT_EQ(attackers.Train(job, control).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft::sim
