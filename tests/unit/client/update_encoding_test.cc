#include "client/update_encoding.h"

#include <gtest/gtest.h>

#include "client/training_state.h"
#include "common/codec/adapter_block.h"
#include "common/codec/codec.h"
#include "common/codec/delta.h"

namespace weft {
namespace {

// Two sites of a LoRA adapter and a whole module.
AdapterState Drawn(uint64_t seed, double scale = 1) {
  at::manual_seed(seed);
  AdapterState state;
  state.spec.rank = 4;
  state.spec.target_modules = {"q_proj"};
  for (const char* path : {"layers.0.q_proj", "layers.1.q_proj"}) {
    state.sites.push_back(
        {{path, 100, 60}, {{"A", scale * at::randn({4, 100})}, {"B", scale * at::randn({60, 4})}}});
  }
  return state;
}

RoundPlan Plan(const std::string& codec, double top_k, bool feedback) {
  RoundPlan plan;
  plan.codec = codec;
  plan.delta = true;
  plan.top_k = top_k;
  plan.error_feedback = feedback;
  return plan;
}

AdapterState Delivered(const EncodedUpdate& update) {
  const TensorBlock block = *DecodeTensorBlock(update.payload);
  return *ViewAdapter(block.sections[0], **FindCodec(block.codec));
}

double Distance(const AdapterState& a, const AdapterState& b) { return NormOf(*ChangeOf(a, b)); }

TEST(UpdateEncodingTest, WithoutADeltaOrAnythingSentTheWholeAdapterTravels) {
  const AdapterState trained = Drawn(1);
  RoundPlan plan = Plan("float32", 0.1, true);
  for (const bool delta : {true, false}) {
    plan.delta = delta;
    const AdapterState sent = Drawn(2);
    const EncodedUpdate update =
        *EncodeTrained(plan, {trained, delta ? nullptr : &sent, std::nullopt});
    EXPECT_FALSE(update.residual.has_value());
    EXPECT_FALSE(DecodeTensorBlock(update.payload)->sections[0].delta);
    EXPECT_EQ(*AdapterSha256(Delivered(update)), *AdapterSha256(trained));
  }
}

TEST(UpdateEncodingTest, OfEachTensorTheLargestShareIsSentAndTheRestIsOwed) {
  const AdapterState sent = Drawn(3);
  const AdapterState trained = *WithChange(sent, Drawn(4, 1e-2));
  const EncodedUpdate update =
      *EncodeTrained(Plan("float32", 0.1, true), {trained, &sent, std::nullopt});
  const AdapterState change = *ChangeOf(trained, sent);
  const AdapterState delivered = Delivered(update);
  for (size_t i = 0; i < 2; ++i) {
    for (const char* name : {"A", "B"}) {
      const at::Tensor got = delivered.sites[i].Get(name);
      const at::Tensor all = change.sites[i].Get(name);
      EXPECT_EQ((got != 0).sum().item<int64_t>(), all.numel() / 10);
      const at::Tensor left = all.masked_select(got == 0).abs().max();
      EXPECT_GE(got.masked_select(got != 0).abs().min().item<float>(), left.item<float>());
    }
  }
  ASSERT_TRUE(update.residual.has_value());
  EXPECT_LE(Distance(*WithChange(delivered, *update.residual), change), 1e-7);
  EXPECT_LT(update.payload.size(), 128u * 8 + 900) << "a tenth of 1280 numbers, and a manifest";
}

// d₁ + … + d_n = what was sent of it + what is still owed, whatever is left out on the way.
TEST(UpdateEncodingTest, NothingIsLostOverRoundsWhateverTheCodecLeavesOut) {
  for (const Codec* codec : CodecRegistry()) {
    for (const double top_k : {1.0, 0.2}) {
      const RoundPlan plan = Plan(std::string(codec->name()), top_k, true);
      const AdapterState sent = Drawn(5);
      AdapterState changes = *ChangeOf(sent, sent);
      AdapterState delivered = changes;
      std::optional<AdapterState> owed;
      for (uint64_t round = 1; round <= 12; ++round) {
        const AdapterState trained = *WithChange(sent, Drawn(10 + round, 1e-2));
        changes = *WithChange(changes, *ChangeOf(trained, sent));
        const EncodedUpdate update = *EncodeTrained(plan, {trained, &sent, owed});
        delivered = *WithChange(delivered, Delivered(update));
        owed = update.residual;
        ASSERT_LE(NormOf(*owed), kResidualNormMax * NormOf(*ChangeOf(trained, sent)) * 1.001);
      }
      const AdapterState whole = *WithChange(delivered, *owed);
      EXPECT_LE(Distance(whole, changes), 1e-4 * NormOf(changes)) << codec->name() << top_k;
      if (top_k == 1) continue;
      EXPECT_LT(NormOf(*owed), 0.8 * NormOf(changes)) << "most of it has arrived";
    }
  }
}

TEST(UpdateEncodingTest, WithoutFeedbackNothingIsOwedAndWhatIsOwedIsCapped) {
  const AdapterState sent = Drawn(6);
  const AdapterState trained = *WithChange(sent, Drawn(7, 1e-3));
  EXPECT_FALSE(
      EncodeTrained(Plan("nf4", 0.1, false), {trained, &sent, Drawn(8)})->residual.has_value());
  const EncodedUpdate update =
      *EncodeTrained(Plan("nf4", 0.1, true), {trained, &sent, Drawn(8, 100)});
  const double own = NormOf(*ChangeOf(trained, sent));
  EXPECT_NEAR(NormOf(*update.residual), kResidualNormMax * own, 1e-4 * own);
}

// NOLA in alternation: one side's coefficients in a round, the other's in the next.
TEST(UpdateEncodingTest, WhatARoundDoesNotTrainStaysAsSentAndItsDebtWaits) {
  at::manual_seed(9);
  const auto drawn = [](double scale) {
    AdapterState state;
    state.spec.method = "nola";
    state.spec.options = {{"nola.train", "beta"}};
    state.sites.push_back(
        {{"q", 8, 8}, {{"alpha", scale * at::randn({640})}, {"beta", scale * at::randn({640})}}});
    return state;
  };
  const AdapterState sent = drawn(1);
  AdapterState trained = sent;
  trained.sites[0].Get("beta") = trained.sites[0].Get("beta") + 0.01 * at::randn({640});
  const AdapterState owed = drawn(1e-3);
  const EncodedUpdate update = *EncodeTrained(Plan("int8", 0.1, true), {trained, &sent, owed});
  EXPECT_EQ(Delivered(update).sites[0].Get("alpha").abs().max().item<float>(), 0);
  EXPECT_GT(Delivered(update).sites[0].Get("beta").abs().max().item<float>(), 0);
  EXPECT_TRUE(at::equal(update.residual->sites[0].Get("alpha"), owed.sites[0].Get("alpha")));
}

TEST(TrainingStateTest, WhatIsOwedComesBackToTheBit) {
  TrainingState state;
  state.layout = "layout";
  state.round = RoundId{7};
  state.residual = Drawn(11, 1e-4);
  state.residual_before = Drawn(12, 1e-4);
  const TrainingState back = *DecodeTrainingState(*EncodeTrainingState(state));
  EXPECT_EQ(back.round, state.round);
  EXPECT_EQ(*AdapterSha256(*back.residual), *AdapterSha256(*state.residual));
  EXPECT_EQ(*AdapterSha256(*back.residual_before), *AdapterSha256(*state.residual_before));
  EXPECT_FALSE(back.kept.has_value());
  state.residual_before.reset();
  EXPECT_FALSE(DecodeTrainingState(*EncodeTrainingState(state))->residual_before.has_value());
}

}  // namespace
}  // namespace weft
