#include "common/codec/delta.h"

#include <gtest/gtest.h>

#include "common/codec/adapter_block.h"
#include "common/codec/codec.h"
#include "common/wire/tensor_block.h"

namespace weft {
namespace {

// Two sites that share their A.
AdapterState Drawn(uint64_t seed) {
  at::manual_seed(seed);
  AdapterState state;
  state.spec.rank = 3;
  const at::Tensor shared = at::randn({3, 40});
  for (const char* path : {"layers.0.q_proj", "layers.1.q_proj"}) {
    state.sites.push_back({{path, 40, 50}, {{"A", shared}, {"B", at::randn({50, 3})}}});
  }
  state.dense.push_back({"head", at::randn({5, 40})});
  return state;
}

// The bits, so that 0 and −0 differ.
bool SameBits(const at::Tensor& a, const at::Tensor& b) {
  return at::equal(a.view(at::kInt), b.view(at::kInt));
}

TEST(DeltaTest, WhatChangedAndWhatWasSentGiveWhatWasTrained) {
  const AdapterState sent = Drawn(1);
  const AdapterState trained = Drawn(2);
  const AdapterState back = *WithChange(sent, *ChangeOf(trained, sent));
  EXPECT_TRUE(SameLayout(back, trained));
  for (size_t i = 0; i < 2; ++i) {
    EXPECT_TRUE(at::allclose(back.sites[i].Get("B"), trained.sites[i].Get("B"), 1e-6, 1e-6));
  }
  EXPECT_TRUE(at::allclose(back.dense[0].value, trained.dense[0].value, 1e-6, 1e-6));
  EXPECT_TRUE(back.sites[0].Get("A").is_same(back.sites[1].Get("A"))) << "still shared";
}

TEST(DeltaTest, WhatIsNotTrainedVanishesAndComesBackToTheBitThroughEveryCodec) {
  AdapterState sent = Drawn(3);
  sent.sites[0].Get("A")[1][2] = -0.0;
  sent.dense[0].value[0][0] = 1e-42;
  AdapterState trained = sent;
  trained.sites[1].Get("B") = trained.sites[1].Get("B") + 0.01 * at::randn({50, 3});
  const AdapterState change = *ChangeOf(trained, sent);
  for (const Codec* codec : CodecRegistry()) {
    const Blob bytes = *EncodeUpdate(change, true, *codec);
    EXPECT_LT(bytes.size(), 1400u) << codec->name() << ": 600 for B in float32, and a manifest";
    const TensorBlock block = *DecodeTensorBlock(bytes);
    EXPECT_TRUE(block.sections[0].delta);
    EXPECT_TRUE(block.sections[0].sites[1].tensors[0].shared_with.has_value());
    const AdapterState back = *WithChange(sent, *ViewAdapter(block.sections[0], *codec));
    EXPECT_TRUE(SameBits(back.sites[0].Get("A"), sent.sites[0].Get("A"))) << codec->name();
    EXPECT_TRUE(SameBits(back.sites[0].Get("B"), sent.sites[0].Get("B"))) << codec->name();
    EXPECT_TRUE(SameBits(back.dense[0].value, sent.dense[0].value)) << codec->name();
    EXPECT_FALSE(SameBits(back.sites[1].Get("B"), sent.sites[1].Get("B"))) << codec->name();
  }
}

TEST(DeltaTest, CodecsRoundTheChangeAndNotTheSum) {
  const AdapterState sent = Drawn(4);
  AdapterState trained = sent;
  const at::Tensor step = 1e-4 * at::randn({50, 3});
  trained.sites[0].Get("B") = trained.sites[0].Get("B") + step;
  for (const Codec* codec : CodecRegistry()) {
    const Blob bytes = *EncodeUpdate(*ChangeOf(trained, sent), true, *codec);
    const TensorBlock block = *DecodeTensorBlock(bytes);
    const AdapterState back = *WithChange(sent, *ViewAdapter(block.sections[0], *codec));
    const at::Tensor off = back.sites[0].Get("B") - trained.sites[0].Get("B");
    // 1e-7 of the sent numbers is what float32 rounds; uniform4 moves by a 14th of the largest.
    EXPECT_LE(off.abs().max().item<double>(),
              step.abs().max().item<double>() * codec->rounding().error + 5e-7)
        << codec->name();
  }
}

TEST(DeltaTest, OtherLayoutsAreRefusedAndADeltaIsNoBundle) {
  AdapterState other = Drawn(5);
  other.sites.pop_back();
  EXPECT_EQ(ChangeOf(Drawn(5), other).status().code(), Code::kInvalidArgument);
  const Codec& codec = **FindCodec("float32");
  AdapterState state = Drawn(6);
  state.sites[1].Get("A") = state.sites[0].Get("A").clone();  // as lora lays them out
  state.spec.target_modules = {"q_proj"};
  EXPECT_TRUE(DecodeBundle(*EncodeUpdate(state, false, codec), at::kCPU).ok());
  const Status status = DecodeBundle(*EncodeUpdate(state, true, codec), at::kCPU).status();
  EXPECT_NE(status.message().find("is a delta"), std::string::npos) << status;
}

}  // namespace
}  // namespace weft
