#include "common/codec/planes.h"

#include <limits>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/codec/codec.h"
#include "common/codec/packing.h"
#include "common/codec/precision.h"

namespace weft {
namespace {

const std::vector<const Codec*> kCodecs = {&Float32Codec(), &Float16Codec(), &BFloat16Codec()};

BlockTensor Plain(const Codec& codec, const at::Tensor& value) {
  return *codec.Encode({"A", value});
}

BlockTensor With(BlockTensor tensor, std::string bytes) {
  tensor.bytes = Blob::Adopt(std::move(bytes));
  return tensor;
}

void ExpectRefused(const BlockTensor& tensor, const std::string& what) {
  const Status status = Unpacked(tensor).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << what;
  EXPECT_NE(status.message().find(what), std::string::npos) << status;
}

TEST(PlanesTest, EveryBitComesBackWhateverTheNumbersAre) {
  at::manual_seed(5);
  for (const Codec* codec : kCodecs) {
    for (const int64_t count : {0, 1, 2, 7, 1000}) {
      at::Tensor value = at::randn({count}) * at::pow(10.0, at::randint(-6, 4, {count}));
      if (count > 2) value[1] = -0.0;
      const BlockTensor plain = Plain(*codec, value);
      const BlockTensor packed = *PlanesPacking().pack(plain);
      EXPECT_EQ(packed.packing, "planes");
      const Result<BlockTensor> back = Unpacked(packed);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(back->bytes.view(), plain.bytes.view());
      EXPECT_TRUE(at::equal(*codec->View(packed), *codec->View(plain)));
    }
  }
}

TEST(PlanesTest, ExponentsOfTrainedNumbersShrinkToWhatTheyHold) {
  at::manual_seed(6);
  const at::Tensor value = at::randn({1 << 16}) * 1e-3;
  const auto ratio = [&](const Codec& codec) {
    const BlockTensor plain = Plain(codec, value);
    const BlockTensor packed = Packed(plain, true);
    EXPECT_EQ(packed.packing, "planes");
    return static_cast<double>(packed.bytes.size()) / static_cast<double>(plain.bytes.size());
  };
  // 8 bits of exponent hold some 2.6: (8 + 2.6) / 16, (24 + 2.6) / 32.
  EXPECT_NEAR(ratio(BFloat16Codec()), 0.675, 0.01);
  EXPECT_NEAR(ratio(Float32Codec()), 0.838, 0.01);
  EXPECT_LT(ratio(Float16Codec()), 0.95);
}

TEST(PlanesTest, WhatDoesNotShrinkStaysPlainAndNothingIsCompressedUnlessAsked) {
  at::manual_seed(7);
  const BlockTensor few = Plain(BFloat16Codec(), at::randn({5}));
  EXPECT_EQ(Packed(few, true).packing, "");
  const BlockTensor many = Plain(BFloat16Codec(), at::randn({5000}));
  EXPECT_EQ(Packed(many).packing, "");
  at::Tensor sparse = at::zeros({100, 100});
  sparse.flatten().slice(0, 0, 10000, 5).normal_();
  EXPECT_EQ(Packed(Plain(BFloat16Codec(), sparse)).packing, "sparse");
  const BlockTensor both = Packed(Plain(BFloat16Codec(), sparse), true);
  EXPECT_EQ(both.packing, "sparse-planes");
  EXPECT_EQ(Unpacked(both)->bytes.view(), Plain(BFloat16Codec(), sparse).bytes.view());
}

TEST(PlanesTest, BytesThatNobodyPackedAreRefused) {
  const BlockTensor plain = Plain(BFloat16Codec(), at::ones({40, 50}));
  const BlockTensor packed = *PlanesPacking().pack(plain);
  const std::string bytes(packed.bytes.view());
  ExpectRefused(With(packed, ""), "wanted at least 2000");
  ExpectRefused(With(packed, bytes.substr(0, 2000)), "not one zstd frame");
  ExpectRefused(With(packed, bytes.substr(0, bytes.size() - 1)), "not one zstd frame");
  ExpectRefused(With(packed, bytes + "x"), "not one zstd frame");
  ExpectRefused(With(packed, bytes.substr(0, 2000) + "12345678"), "not one zstd frame");
  BlockTensor bad = plain;
  bad.bytes = Blob::Copy(std::string(4000, '\xFF'));
  ExpectRefused(*PlanesPacking().pack(bad), "NaN or an infinity");
  BlockTensor integers = packed;
  integers.dtype = DType::kInt32;
  ExpectRefused(integers, "wanted F32, F16 or BF16");
}

// A frame of a few bytes that holds far more than the shape: the shape decides what is taken.
TEST(PlanesTest, AFrameThatHoldsMoreOrFewerExponentsThanTheShapeIsRefused) {
  const BlockTensor large = *PlanesPacking().pack(Plain(BFloat16Codec(), at::ones({1 << 22})));
  const std::string frame(large.bytes.view().substr(1 << 22));
  EXPECT_LT(frame.size(), 1000u);
  BlockTensor bomb = Plain(BFloat16Codec(), at::ones({4}));
  bomb.packing = "planes";
  ExpectRefused(With(bomb, "1234" + frame), "cannot be decompressed");
  const BlockTensor small = *PlanesPacking().pack(Plain(BFloat16Codec(), at::ones({3})));
  ExpectRefused(With(bomb, "1234" + std::string(small.bytes.view().substr(3))),
                "got 3 exponents, wanted 4");
}

TEST(PlanesTest, RandomChangesAreRefusedOrFinite) {
  RandomStream random(9);
  at::manual_seed(9);
  const BlockTensor packed = Packed(Plain(BFloat16Codec(), at::randn({600})), true);
  for (int turn = 0; turn < 3000; ++turn) {
    std::string bytes(packed.bytes.view());
    for (uint64_t i = 0; i <= random.Below(3); ++i) {
      bytes[600 + random.Below(bytes.size() - 600)] = static_cast<char>(random.NextU32());
    }
    const Result<BlockTensor> plain = Unpacked(With(packed, bytes));
    if (plain.ok()) {
      EXPECT_TRUE(IsFinite(*plain));
      EXPECT_EQ(plain->bytes.size(), 1200u);
    } else {
      EXPECT_EQ(plain.status().code(), Code::kInvalidArgument);
    }
  }
}

}  // namespace
}  // namespace weft
