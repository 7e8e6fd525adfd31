#include "common/codec/blockwise.h"

#include <cmath>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/codec/packing.h"
#include "common/codec/precision.h"
#include "common/codec/uniform.h"

namespace weft {
namespace {

const std::vector<const Codec*> kCodecs = {&Int8Codec(), &Int4Codec(), &Nf4Codec()};
const std::vector<const ValuePacking*> kPackings = {&Int8Packing(), &Int4Packing(), &Nf4Packing()};

at::Tensor Through(const Codec& codec, const at::Tensor& value) {
  const Result<BlockTensor> encoded = codec.Encode({"A", value});
  WEFT_CHECK(encoded.ok(), encoded.status());
  const Result<at::Tensor> back = codec.Decode(*encoded);
  WEFT_CHECK(back.ok(), back.status());
  return *back;
}

double RelativeError(const Codec& codec, const at::Tensor& value) {
  return ((Through(codec, value) - value).norm() / value.norm()).item<double>();
}

// Student's t with 3 degrees of freedom: a normal over √(χ²₃ / 3).
at::Tensor StudentT3(int64_t count) {
  const at::Tensor chi2 = at::randn({3, count}).square().sum(0);
  return at::randn({count}) / (chi2 / 3).sqrt();
}

TEST(BlockwiseCodecTest, ErrorsAreThoseOfTheTableOnGaussianAndHeavyTailedEntries) {
  // Relative L2 errors measured elsewhere, in numpy; t3 varies with the few largest draws.
  struct Row {
    const Codec* codec;
    double gaussian;
    double t3;
  };
  const std::vector<Row> rows = {{&Int8Codec(), 6.0e-3, 1.1e-2}, {&Nf4Codec(), 0.092, 0.124}};
  at::manual_seed(8);
  const at::Tensor gaussian = at::randn({1 << 20}) * 3e-4;
  const at::Tensor t3 = StudentT3(1 << 20) * 3e-4;
  for (const Row& row : rows) {
    EXPECT_NEAR(RelativeError(*row.codec, gaussian), row.gaussian, 0.03 * row.gaussian)
        << row.codec->name();
    EXPECT_NEAR(RelativeError(*row.codec, t3), row.t3, 0.12 * row.t3) << row.codec->name();
  }
  // Symmetric codes of four bits lose .108 and .184; the range of each block does better.
  EXPECT_LT(RelativeError(Int4Codec(), gaussian), 0.10);
  EXPECT_LT(RelativeError(Int4Codec(), t3), 0.16);
}

TEST(BlockwiseCodecTest, SizesAreThoseOfCodesAndScales) {
  for (const int64_t count : {1, 63, 64, 65, 1000}) {
    const at::Tensor value = at::randn({count}) + 10;
    const auto blocks = static_cast<size_t>((count + 63) / 64);
    const auto n = static_cast<size_t>(count);
    EXPECT_EQ(Int8Codec().Encode({"A", value})->bytes.size(), 2 + 2 * blocks + n);
    EXPECT_EQ(Nf4Codec().Encode({"A", value})->bytes.size(), 2 + 2 * blocks + (n + 1) / 2);
    EXPECT_EQ(Int4Codec().Encode({"A", value})->bytes.size(),
              2 + 2 * blocks + (blocks + 1) / 2 + (n + 1) / 2);
  }
}

TEST(BlockwiseCodecTest, LevelsAreTheQuantilesOfANormalDistribution) {
  const at::Tensor levels = Nf4Levels();
  ASSERT_EQ(levels.sizes(), (std::vector<int64_t>{16}));
  // The table that QLoRA's authors printed, which ours rounds to 12 bits.
  const at::Tensor printed = at::tensor(
      {-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0,
       0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0});
  EXPECT_LE((levels - printed).abs().max().item<double>(), 1.3e-4);
  EXPECT_EQ(levels[7].item<float>(), 0);
}

TEST(BlockwiseCodecTest, ALargeElementCostsPrecisionInItsOwnBlockOnly) {
  at::Tensor value = at::linspace(-1, 1, 256);
  const at::Tensor before = Through(Int8Codec(), value);
  value[70] = 1e6;
  const at::Tensor after = Through(Int8Codec(), value);
  EXPECT_TRUE(at::equal(after.narrow(0, 0, 64), before.narrow(0, 0, 64)));
  EXPECT_TRUE(at::equal(after.narrow(0, 128, 128), before.narrow(0, 128, 128)));
  EXPECT_FALSE(at::equal(after.narrow(0, 64, 6), before.narrow(0, 64, 6)));
}

// All elements packed, zeros or not: among mostly zeros the rest make up blocks of their own.
at::Tensor ThroughWhole(const ValuePacking& how, const at::Tensor& value) {
  const Result<BlockTensor> packed = how.pack(*Float32Codec().Encode({"A", value}));
  WEFT_CHECK(packed.ok(), packed.status());
  return *Float32Codec().View(*how.unpack(*packed));
}

TEST(BlockwiseCodecTest, DecodingIsTheInverseAtEveryMagnitudeAndRange) {
  RandomStream draw(3);
  for (int turn = 0; turn < 300; ++turn) {
    at::manual_seed(static_cast<uint64_t>(turn));
    const auto count = static_cast<int64_t>(1 + draw.Below(300));
    at::Tensor value = at::randn({count}) * std::pow(10.0, -30 + static_cast<double>(turn % 60));
    // Blocks of their own ranges, offsets and signs.
    value = value * at::pow(10.0, at::randint(-8, 3, {count})).to(at::kFloat);
    if (turn % 3 == 1) value = value.abs();
    if (turn % 3 == 2) value = value.round();
    for (const ValuePacking* how : kPackings) {
      const at::Tensor once = ThroughWhole(*how, value);
      EXPECT_TRUE(at::equal(ThroughWhole(*how, once), once)) << how->name << " turn " << turn;
    }
  }
}

TEST(BlockwiseCodecTest, HalvesOfStepsInBothDirectionsKeepTheirRange) {
  // −6.5 and 8.5 steps: rounding both to even would leave 14 of the 15 steps.
  for (int low = 0; low < 15; ++low) {
    at::Tensor value = at::zeros({64});
    value[3] = -low - 0.5;
    value[9] = 14.5 - low;
    const at::Tensor once = ThroughWhole(Int4Packing(), value);
    EXPECT_EQ((once.max() - once.min()).item<double>(), 15) << low;
    EXPECT_TRUE(at::equal(ThroughWhole(Int4Packing(), once), once)) << low;
  }
}

TEST(BlockwiseCodecTest, TheSmallestAndLargestNumbersComeBackAndOnesThatCannotAreRefused) {
  for (const Codec* codec : kCodecs) {
    for (const float extreme : {1e-30F, 1e30F, std::numeric_limits<float>::max() / 2}) {
      const at::Tensor value = at::full({70}, extreme);
      EXPECT_TRUE(at::allclose(Through(*codec, value), value, 5e-3, 0)) << extreme << codec->name();
    }
    // Denormal: none of it is left, which is no error.
    const at::Tensor small = at::full({70}, 1e-42F);
    EXPECT_EQ(Through(*codec, small).abs().max().item<float>(), 0) << codec->name();
  }
  const at::Tensor largest = at::full({3}, std::numeric_limits<float>::max());
  const Status status = Nf4Codec().Encode({"A", largest}).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("does not fit nf4"), std::string::npos) << status;
}

TEST(BlockwiseCodecTest, MostlyZerosArePackedAsPositionsAndTheRest) {
  at::Tensor value = at::zeros({64, 64});
  value.flatten().slice(0, 5, 4096, 40).normal_();
  for (const Codec* codec : {kCodecs[0], kCodecs[1], kCodecs[2], &Uniform8Codec()}) {
    const BlockTensor packed = *codec->Encode({"A", value});
    EXPECT_EQ(packed.packing, "sparse-" + std::string(codec->name()));
    EXPECT_LT(packed.bytes.size(), 320u) << codec->name();
    const at::Tensor back = *codec->Decode(packed);
    EXPECT_TRUE((back.masked_select(value == 0) == 0).all().item<bool>());
    EXPECT_LE((back - value).abs().max().item<double>(),
              value.abs().max().item<double>() * codec->rounding().error);
    EXPECT_TRUE(CheckPacked({"", {{"adapter", {}, {{{"q", 64, 64}, {packed}}}, {}}}}).ok());
  }
}

BlockTensor Spoilt(const Codec& codec, const at::Tensor& value,
                   const std::function<void(std::string&)>& change) {
  BlockTensor tensor = *codec.Encode({"lora_A", value});
  std::string bytes(tensor.bytes.view());
  change(bytes);
  tensor.bytes = Blob::Copy(bytes);
  return tensor;
}

void ExpectRefused(const BlockTensor& tensor, const std::string& what) {
  const Status status = Unpacked(tensor).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << what;
  EXPECT_NE(status.message().find("lora_A"), std::string::npos) << status;
  EXPECT_NE(status.message().find(what), std::string::npos) << status;
}

TEST(BlockwiseCodecTest, BytesThatNobodyPackedAreRefused) {
  const at::Tensor value = at::linspace(-1, 1, 65);  // two blocks, odd
  for (const Codec* codec : kCodecs) {
    const auto spoilt = [&](const std::function<void(std::string&)>& change) {
      return Spoilt(*codec, value, change);
    };
    ExpectRefused(spoilt([](std::string& b) { b.pop_back(); }), "elements in 2 blocks");
    ExpectRefused(spoilt([](std::string& b) { b += 'x'; }), "elements in 2 blocks");
    ExpectRefused(spoilt([](std::string& b) { b.clear(); }), "got 0 bytes");
    ExpectRefused(spoilt([](std::string& b) { b[1] = 1; }), "exponent");
    for (const int high : {0x7C, 0x7E, 0x80, 0xBC, 0x01}) {  // inf, NaN, −0, negative, denormal
      ExpectRefused(spoilt([&](std::string& b) {
                      b[2] = 0;
                      b[3] = static_cast<char>(high);
                    }),
                    "scale is negative, not finite or too small");
    }
    BlockTensor other = *codec->Encode({"lora_A", value});
    other.dtype = DType::kFloat16;
    ExpectRefused(other, "wanted F32");
  }
  ExpectRefused(Spoilt(Int8Codec(), value, [](std::string& b) { b[6] = '\x80'; }), "outside ±127");
  for (const Codec* codec : {&Int4Codec(), &Nf4Codec()}) {
    ExpectRefused(Spoilt(*codec, value, [](std::string& b) { b.back() |= '\x10'; }), "padding");
  }
  ExpectRefused(
      Spoilt(Int4Codec(), at::linspace(-1, 1, 64), [](std::string& b) { b[4] |= '\x10'; }),
      "padding of its zeros");
  // Exponent 112 and a scale of 65504: beyond float32 from code 2 on.
  ExpectRefused(Spoilt(Int8Codec(), value,
                       [](std::string& b) {
                         b[0] = 112;
                         b[1] = 0;
                         b[2] = '\xFF';
                         b[3] = '\x7B';
                       }),
                "larger than float32");
  BlockTensor unknown = *Int8Codec().Encode({"lora_A", value});
  unknown.packing = "sparse-int16";
  ExpectRefused(unknown, "known: sparse, planes");
}

TEST(BlockwiseCodecTest, SparseBytesOfAnotherLengthAreRefused) {
  at::Tensor value = at::zeros({64, 64});
  value[3].normal_();
  for (const Codec* codec : kCodecs) {
    ExpectRefused(Spoilt(*codec, value, [](std::string& b) { b.pop_back(); }), "bytes, wanted");
    ExpectRefused(Spoilt(*codec, value, [](std::string& b) { b += 'x'; }), "bytes, wanted");
    ExpectRefused(Spoilt(*codec, value, [](std::string& b) { b.resize(7); }), "wanted at least");
  }
}

TEST(BlockwiseCodecTest, RandomBytesAreRefusedOrFinite) {
  RandomStream random(4);
  int taken = 0;
  for (int turn = 0; turn < 6000; ++turn) {
    const ValuePacking& how = *kPackings[static_cast<size_t>(turn) % 3];
    BlockTensor tensor{"A", DType::kFloat32, {5, 26}, Blob(), std::nullopt, std::string(how.name)};
    std::vector<std::byte> bytes(how.name == "int8" ? 138 : how.name == "int4" ? 75 : 73);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.NextU32());
    if (turn % 2 == 0) {  // an exponent and three scales as they may be
      bytes[1] = std::byte{0};
      for (const size_t high : {3, 5, 7})
        bytes[high] = (bytes[high] & std::byte{0x3F}) | std::byte{8};
    }
    if (random.Below(20) == 0) bytes.resize(random.Below(bytes.size()));
    tensor.bytes = Blob::Adopt(std::move(bytes));
    const Result<BlockTensor> plain = Unpacked(tensor);
    if (!plain.ok()) {
      EXPECT_EQ(plain.status().code(), Code::kInvalidArgument);
      continue;
    }
    ++taken;
    EXPECT_TRUE(IsFinite(*plain));
    EXPECT_EQ(plain->bytes.size(), 130u * sizeof(float));
  }
  EXPECT_GT(taken, 100);
}

}  // namespace
}  // namespace weft
