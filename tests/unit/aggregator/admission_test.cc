// What is asked of a hello, an offered update and an evaluation before they cost anything: every
// field that must fit, one by one.

#include "aggregator/admission.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
const ClientId kAlice{"alice"};

BaseDescription Base() {
  BaseDescription base;
  base.hash = std::string(64, 'a');
  base.sites = {{"l.0.q_proj", 32, 32}, {"l.0.up_proj", 32, 64}};
  return base;
}

// ---- hello ----

Hello GoodHello() {
  Hello hello;
  hello.base_hash = Base().hash;
  hello.sites = Base().sites;
  hello.capabilities.methods = {"nola", "lora"};
  hello.capabilities.codecs = {"float32", "bfloat16"};
  hello.capabilities.rank_max = 16;
  hello.capabilities.num_examples = 10;
  return hello;
}

std::optional<Refusal> Judge(const std::function<void(Hello&)>& change) {
  Hello hello = GoodHello();
  change(hello);
  const BaseDescription base = Base();
  return CheckHello(kAlice, hello, {.base = base, .method = "lora", .codec = "bfloat16"});
}

TEST(HelloTest, OneThatFitsIsLetInWithWhateverElseItCanDo) {
  EXPECT_FALSE(Judge([](Hello&) {}).has_value());
  EXPECT_FALSE(Judge([](Hello& h) { h.capabilities.rank_max = 0; }).has_value());
  EXPECT_FALSE(Judge([](Hello& h) { h.capabilities.num_examples = 0; }).has_value())
      << "a site may only evaluate";
  EXPECT_FALSE(Judge([](Hello& h) { h.capabilities.device = "cuda:7"; }).has_value());
  EXPECT_FALSE(Judge([](Hello& h) { h.protocol = kProtocolVersion - 1; }).has_value());
  EXPECT_FALSE(Judge([](Hello& h) { h.protocol = kProtocolVersion + 1; }).has_value());
}

TEST(HelloTest, WhatDoesNotFitIsRefusedForGoodWithGotAndWanted) {
  struct Case {
    std::function<void(Hello&)> change;
    std::string got, wanted;
  };
  const std::vector<Case> cases = {
      {[](Hello& h) { h.protocol = kProtocolVersion + 2; }, Str("version ", kProtocolVersion + 2),
       Str("wanted ", kProtocolVersion)},
      {[](Hello& h) { h.base_hash = std::string(64, 'b'); }, "bbbbbbbbbbbbbbbb…",
       "aaaaaaaaaaaaaaaa…"},
      {[](Hello& h) { h.base_hash.clear(); }, "got hash none", "aaaaaaaaaaaaaaaa…"},
      {[](Hello& h) { h.sites.pop_back(); }, "got 1 linear layers", "wanted 2"},
      {[](Hello& h) { h.sites[1].out = 65; }, "l.0.up_proj [65x32]", "l.0.up_proj [64x32]"},
      {[](Hello& h) { std::swap(h.sites[0], h.sites[1]); }, "layer 0: got l.0.up_proj",
       "wanted l.0.q_proj"},
      {[](Hello& h) { h.capabilities.methods = {"nola"}; }, "got nola", "wanted lora"},
      {[](Hello& h) { h.capabilities.methods.clear(); }, "got none", "wanted lora"},
      {[](Hello& h) { h.capabilities.codecs = {"float32"}; }, "got float32", "wanted bfloat16"},
      {[](Hello& h) { h.capabilities.rank_max = -1; }, "got -1", "wanted 1 to"},
      {[](Hello& h) { h.capabilities.rank_max = limits::kRankMax + 1; }, "rank: got 65537",
       "65536"}};
  for (const Case& one : cases) {
    const std::optional<Refusal> refusal = Judge(one.change);
    ASSERT_TRUE(refusal.has_value()) << one.got;
    EXPECT_FALSE(refusal->retry);
    EXPECT_NE(refusal->code, Code::kOk);
    EXPECT_NE(refusal->reason.find("client alice"), std::string::npos) << refusal->reason;
    EXPECT_NE(refusal->reason.find(one.got), std::string::npos) << refusal->reason;
    EXPECT_NE(refusal->reason.find(one.wanted), std::string::npos) << refusal->reason;
  }
}

// ---- an offered update ----

RoundPlan Plan() {
  RoundPlan plan;
  plan.run = {"run"};
  plan.round = {3};
  plan.version = {2};
  plan.base_hash = Base().hash;
  plan.codec = "float32";
  ClientPlan own;
  own.client = kAlice;
  own.adapter.rank = 4;
  own.adapter.target_modules = {"q_proj"};
  plan.cohort = {own};
  return plan;
}

UpdateOffer GoodOffer() {
  const RoundPlan plan = Plan();
  UpdateOffer offer;
  offer.header.run = plan.run;
  offer.header.round = plan.round;
  offer.header.client = kAlice;
  offer.header.version = plan.version;
  offer.header.base_hash = plan.base_hash;
  offer.header.spec = plan.cohort[0].adapter;
  offer.header.codec = plan.codec;
  offer.header.num_examples = 7;
  offer.header.label_tokens = 70;
  offer.header.train_loss = 2;
  offer.header.payload_bytes = offer.payload.bytes = 1000;
  offer.header.payload_sha256 = offer.payload.sha256 = std::string(64, 'c');
  return offer;
}

TEST(UpdateOfferTest, TheOneAskedForIsTakenUpToItsLargestSize) {
  UpdateOffer offer = GoodOffer();
  EXPECT_TRUE(CheckUpdateOffer(kAlice, offer, Plan(), Plan().cohort[0], 1000).ok());
  EXPECT_EQ(CheckUpdateOffer(kAlice, offer, Plan(), Plan().cohort[0], 999).code(),
            Code::kResourceExhausted);
  offer.header.num_examples = limits::kExamplesMax;
  EXPECT_TRUE(CheckUpdateOffer(kAlice, offer, Plan(), Plan().cohort[0], 1000).ok());
}

TEST(UpdateOfferTest, EveryFieldThatDiffersIsRefusedByName) {
  struct Case {
    std::function<void(UpdateOffer&)> change;
    std::string words;
  };
  const std::vector<Case> cases = {
      {[](auto& o) { o.header.client = {"bob"}; }, "client: got bob, wanted alice"},
      {[](auto& o) { o.header.run = {"other"}; }, "run: got other, wanted run"},
      {[](auto& o) { o.header.round = {4}; }, "round: got 4, wanted 3"},
      {[](auto& o) { o.header.version = {1}; }, "version it started from: got 1, wanted 2"},
      {[](auto& o) { o.header.base_hash = std::string(64, 'f'); }, "base model: got ffff"},
      {[](auto& o) { o.header.codec = "float16"; }, "codec: got float16, wanted float32"},
      {[](auto& o) { o.header.spec.rank = 5; }, "adapter rank is 5, the plan says 4"},
      {[](auto& o) { o.header.spec.alpha = 99; }, "adapter alpha is 99, the plan says 16"},
      {[](auto& o) { o.header.spec.target_modules.push_back("k_proj"); }, "adapter targets"},
      {[](auto& o) { o.header.num_examples = 0; }, "num-examples: got 0"},
      {[](auto& o) { o.header.num_examples = limits::kExamplesMax + 1; }, "num-examples: got"},
      {[](auto& o) { o.header.train_loss = kNan; }, "train_loss: got nan"},
      {[](auto& o) { o.header.train_loss = -kInfinity; }, "train_loss: got -inf"},
      {[](auto& o) { o.header.payload_bytes = 999; }, "name different payloads"},
      {[](auto& o) { o.payload.sha256 = std::string(64, 'd'); }, "name different payloads"},
      {[](auto& o) { o.header.payload_bytes = o.payload.bytes = 0; }, "payload: got 0 bytes"}};
  for (const Case& one : cases) {
    UpdateOffer offer = GoodOffer();
    one.change(offer);
    const Status status = CheckUpdateOffer(kAlice, offer, Plan(), Plan().cohort[0], 1000);
    EXPECT_FALSE(status.ok()) << one.words;
    EXPECT_NE(status.message().find(one.words), std::string::npos) << status;
    EXPECT_NE(status.message().find("client alice round 3"), std::string::npos) << status;
  }
}

TEST(UpdateBytesTest, TheBoundCoversWhatAnUpdateNeedsAndNotMuchMore) {
  AdapterSpec spec;
  spec.rank = 16;
  spec.rank_pattern = {{"up_proj", 2}};
  const std::vector<LinearSite> sites = {{"l.0.q_proj", 4096, 4096}, {"l.0.up_proj", 4096, 11008}};
  const uint64_t floats = 16 * 8192 + 2 * 15104;
  const uint64_t most = UpdateBytesMax(spec, sites, sites);
  EXPECT_GE(most, 4 * floats);
  EXPECT_LE(most, 9 * floats + limits::kManifestBytesMax);
  // A rank that nobody can have does not make it boundless.
  spec.rank = limits::kRankMax;
  spec.rank_pattern.clear();
  EXPECT_LE(UpdateBytesMax(spec, std::vector<LinearSite>(1000, sites[0]), sites),
            limits::kPayloadBytesMax);
  spec.modules_to_save = {"lm_head"};
  EXPECT_EQ(UpdateBytesMax(spec, sites, sites), limits::kPayloadBytesMax) << "of unknown shape";
  spec.modules_to_save = {"classifier"};
  spec.labels = {"a", "b", "c"};
  std::vector<LinearSite> base = sites;
  base.push_back({"classifier", 1000, 2});
  spec.rank = 2;
  const uint64_t with_head = UpdateBytesMax(spec, sites, base);
  spec.modules_to_save.clear();
  spec.labels.clear();
  const uint64_t without = UpdateBytesMax(spec, sites, base);
  EXPECT_GE(with_head, without + 4 * 3003);
  EXPECT_LE(with_head, without + 9 * 3003 + 64);
}

// ---- an evaluation ----

TEST(EvalReportTest, OnlyAnAnswerToTheQuestionThatCanBeAveragedIsTaken) {
  EvalReport good;
  good.client = kAlice;
  good.run = {"run"};
  good.version = {2};
  good.loss = 1.5;
  good.label_tokens = 10;
  const auto check = [&](const std::function<void(EvalReport&)>& change) {
    EvalReport report = good;
    change(report);
    return CheckEvalReport(kAlice, report, RunId{"run"}, RoundId{2});
  };
  EXPECT_TRUE(check([](EvalReport&) {}).ok());
  struct Case {
    std::function<void(EvalReport&)> change;
    std::string words;
  };
  const std::vector<Case> cases = {
      {[](auto& r) { r.client = {"bob"}; }, "client: got bob"},
      {[](auto& r) { r.run = {"other"}; }, "run: got other"},
      {[](auto& r) { r.version = {3}; }, "version: got 3, wanted 2"},
      {[](auto& r) { r.loss = kNan; }, "loss: got nan"},
      {[](auto& r) { r.loss = kInfinity; }, "loss: got inf"},
      {[](auto& r) { r.label_tokens = 0; }, "label tokens: got 0"},
      {[](auto& r) { r.label_tokens = ~uint64_t{0}; }, "label tokens: got"}};
  for (const Case& one : cases) {
    const Status status = check(one.change);
    EXPECT_FALSE(status.ok()) << one.words;
    EXPECT_NE(status.message().find(one.words), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace weft
