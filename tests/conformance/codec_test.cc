// What every codec of the registry promises, whatever it stores.

#include "common/codec/codec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/codec/adapter_block.h"

namespace weft {
namespace {

class CodecConformance : public ::testing::TestWithParam<const Codec*> {
 protected:
  static const Codec& codec() { return *GetParam(); }

  static at::Tensor Drawn(at::IntArrayRef shape, uint64_t seed) {
    at::Tensor value = at::empty(shape, at::kFloat);
    RandomStream stream(seed);
    for (int64_t i = 0; i < value.numel(); ++i) {
      value.mutable_data_ptr<float>()[i] = static_cast<float>(stream.Normal());
    }
    return value;
  }
  static at::Tensor Through(const at::Tensor& value) {
    const Result<BlockTensor> encoded = codec().Encode({"A", value});
    EXPECT_TRUE(encoded.ok()) << encoded.status();
    const Result<at::Tensor> decoded = codec().Decode(*encoded);
    EXPECT_TRUE(decoded.ok()) << decoded.status();
    return *decoded;
  }
};

TEST_P(CodecConformance, ItIsFoundByItsNameAndSaysWhatItStores) {
  EXPECT_EQ(*FindCodec(codec().name()), &codec());
  const BlockTensor encoded = *codec().Encode({"A", Drawn({3, 5}, 1)});
  EXPECT_EQ(encoded.name, "A");
  EXPECT_EQ(encoded.dtype, codec().dtype());
  EXPECT_EQ(encoded.shape, (std::vector<int64_t>{3, 5}));
}

TEST_P(CodecConformance, ShapesOfEveryKindComeBackAsFloat32) {
  for (const std::vector<int64_t>& shape : std::vector<std::vector<int64_t>>{
           {1, 1}, {1, 77}, {129, 1}, {16, 48}, {7}, {0, 4}, {2, 3, 4}}) {
    const at::Tensor back = Through(Drawn(shape, 2));
    EXPECT_EQ(back.sizes().vec(), shape);
    EXPECT_EQ(back.scalar_type(), at::kFloat);
    EXPECT_TRUE(back.is_contiguous());
  }
}

TEST_P(CodecConformance, DecodingIsTheInverseOnWhatWasDecodedOnce) {
  const at::Tensor once = Through(Drawn({40, 40}, 3));
  EXPECT_TRUE(at::equal(Through(once), once));
}

TEST_P(CodecConformance, ZeroSignsAndExactNumbersStayAsTheyAre) {
  if (!codec().elementwise()) GTEST_SKIP() << "its elements share a scale";
  const at::Tensor exact = at::tensor({0.0F, 1.0F, -1.0F, 0.5F, -0.25F, 2.0F, 96.0F, -128.0F});
  EXPECT_TRUE(at::equal(Through(exact), exact));
}

TEST_P(CodecConformance, ErrorsAreWithinWhatTheCodecSaysAndOrderIsKept) {
  const at::Tensor values = std::get<0>(Drawn({4096}, 4).sort());
  const at::Tensor back = Through(values);
  const Rounding rounding = codec().rounding();
  ASSERT_GT(rounding.block, 0);
  if (codec().elementwise()) {
    // Monotone rounding: larger in, not smaller out.
    EXPECT_TRUE((back.slice(0, 1) >= back.slice(0, 0, -1)).all().item<bool>());
    const at::Tensor off = (back - values).abs() / (values.abs() + 1e-6);
    EXPECT_LE(off.max().item<double>(), rounding.error * 1.0001);
    return;
  }
  const int64_t block = std::min(rounding.block, values.numel());
  for (int64_t first = 0; first < values.numel(); first += block) {
    const at::Tensor in = values.narrow(0, first, block);
    const at::Tensor out = back.narrow(0, first, block);
    EXPECT_TRUE((out.slice(0, 1) >= out.slice(0, 0, -1)).all().item<bool>());
    EXPECT_LE((out - in).abs().max().item<double>(),
              in.abs().max().item<double>() * rounding.error);
  }
}

TEST_P(CodecConformance, ZerosComeBackAsZerosAmongWhateverElse) {
  at::Tensor value = Drawn({40, 40}, 11) + 3;
  const at::Tensor zero = Drawn({40, 40}, 12) > 0.3;
  value.masked_fill_(zero, 0);
  const at::Tensor back = Through(value);
  EXPECT_TRUE((back.masked_select(zero).view(at::kInt) == 0).all().item<bool>());
  EXPECT_TRUE(at::equal(Through(at::zeros({40, 40})), at::zeros({40, 40})));
}

TEST_P(CodecConformance, ATensorOfZerosTakesNoRoomWhereBytesAreToBeFew) {
  AdapterState state;
  state.spec.rank = 4;
  state.spec.target_modules = {"q_proj"};
  state.sites.push_back(
      {{"layers.0.q_proj", 512, 512}, {{"A", at::zeros({4, 512})}, {"B", at::zeros({512, 4})}}});
  const BlockSection section = *EncodeAdapter(state, kAdapterRole, codec(), TensorForm::kShortest);
  for (const BlockTensor& tensor : section.sites[0].tensors) {
    EXPECT_LE(tensor.bytes.size(), 16u) << tensor.packing;
    EXPECT_TRUE(at::equal(*codec().Decode(tensor), at::zeros(tensor.shape)));
  }
}

TEST_P(CodecConformance, TransposedViewsSlicesAndOtherPrecisionsAreStoredByValue) {
  const at::Tensor base = Drawn({24, 10}, 5);
  const at::Tensor plain = Through(base.t().contiguous());
  EXPECT_TRUE(at::equal(Through(base.t()), plain));
  EXPECT_TRUE(at::equal(Through(base.to(at::kDouble).t()), plain));
  EXPECT_TRUE(
      at::equal(Through(base.slice(0, 3, 17, 2)), Through(base.slice(0, 3, 17, 2).contiguous())));
  EXPECT_TRUE(at::equal(Through(at::Tensor(base.clone()).requires_grad_(true)), Through(base)));
}

TEST_P(CodecConformance, ADecodedTensorIsItsOwnersToChange) {
  const BlockTensor encoded = *codec().Encode({"A", Drawn({4, 4}, 6)});
  const std::string bytes(encoded.bytes.view());
  at::Tensor decoded = *codec().Decode(encoded);
  decoded.fill_(9);
  EXPECT_EQ(encoded.bytes.view(), bytes);
}

TEST_P(CodecConformance, TheEncodedBytesOutliveTheTensor) {
  Result<BlockTensor> encoded = codec().Encode({"A", Drawn({64, 64}, 7)});
  const at::Tensor again = *codec().Decode(*encoded);
  EXPECT_TRUE(at::equal(again, Through(Drawn({64, 64}, 7))));
}

TEST_P(CodecConformance, WhatIsNotFiniteIsRefusedAndNamed) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity(),
        -std::numeric_limits<double>::infinity()}) {
    at::Tensor value = Drawn({5, 5}, 8);
    value[4][4] = bad;
    const Status status = codec().Encode({"lora_A", value}).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument);
    EXPECT_NE(status.message().find("lora_A"), std::string::npos) << status;
    EXPECT_NE(status.message().find("NaN or infinite"), std::string::npos) << status;
  }
  // Finite in float64, but in no type that a codec stores.
  const at::Tensor huge = at::full({2}, 1e300, at::kDouble);
  EXPECT_NE(codec().Encode({"B", huge}).status().message().find("does not fit"), std::string::npos);
}

TEST_P(CodecConformance, BytesOfAnotherTypeOrLengthAreRefused) {
  BlockTensor encoded = *codec().Encode({"A", Drawn({4, 6}, 9)});
  for (const Codec* other : CodecRegistry()) {
    if (other == &codec()) continue;
    EXPECT_EQ(other->Decode(encoded).status().code(), Code::kInvalidArgument) << other->name();
  }
  encoded.shape = {4, 7};
  EXPECT_EQ(codec().Decode(encoded).status().code(), Code::kInvalidArgument);
  encoded.shape = {4, 6};
  encoded.bytes = encoded.bytes.Slice(0, encoded.bytes.size() - 1);
  EXPECT_EQ(codec().Decode(encoded).status().code(), Code::kInvalidArgument);
}

TEST_P(CodecConformance, WholeAdaptersOfDrawnRanksComeBackInOrder) {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    RandomStream draw(seed);
    AdapterState state;
    state.spec.rank = 1 + static_cast<int64_t>(draw.Below(8));
    state.spec.target_modules = {"q_proj"};
    for (uint64_t i = 0; i < 1 + draw.Below(5); ++i) {
      const LinearSite site{"layers." + std::to_string(i) + ".q_proj",
                            static_cast<int64_t>(8 + draw.Below(20)),
                            static_cast<int64_t>(8 + draw.Below(20))};
      state.sites.push_back({site,
                             {{"A", Drawn({state.spec.rank, site.in}, draw.NextU64())},
                              {"B", Drawn({site.out, state.spec.rank}, draw.NextU64())}}});
    }
    const Result<Blob> bytes = EncodeBundle({state, state}, codec());
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const Result<AdapterBundle> bundle = DecodeBundle(*bytes, at::kCPU);
    ASSERT_TRUE(bundle.ok()) << bundle.status();
    for (const auto* part : {&bundle->adapter, &bundle->frozen}) {
      ASSERT_TRUE(part->has_value());
      EXPECT_EQ((*part)->spec, state.spec);
      ASSERT_TRUE(SameLayout(**part, state));
      for (size_t i = 0; i < state.sites.size(); ++i) {
        EXPECT_TRUE(at::equal((*part)->sites[i].Get("B"), Through(state.sites[i].Get("B"))));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, CodecConformance, ::testing::ValuesIn(CodecRegistry()),
                         [](const auto& test) { return std::string(test.param->name()); });

TEST(CodecRegistryTest, NamesAreUnique) {
  std::set<std::string_view> names;
  for (const Codec* codec : CodecRegistry()) {
    EXPECT_TRUE(names.insert(codec->name()).second) << codec->name();
  }
}

}  // namespace
}  // namespace weft
