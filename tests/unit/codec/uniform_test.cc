#include "common/codec/uniform.h"

#include <cmath>
#include <limits>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/codec/packing.h"

namespace weft {
namespace {

const std::vector<const Codec*> kCodecs = {&Uniform8Codec(), &Uniform4Codec()};

int Codes(const Codec& codec) { return codec.name() == kUniform8Packing ? 127 : 7; }

TEST(UniformCodecTest, AnElementMovesByHalfAStepAtMostAndTheLargestNotAtAll) {
  at::manual_seed(1);
  for (const Codec* codec : kCodecs) {
    for (const int64_t count : {1, 2, 3, 64, 513}) {
      const at::Tensor value = at::randn({count}) * 3.7e-3;
      const at::Tensor back = *codec->Decode(*codec->Encode({"alpha", value}));
      const double largest = value.abs().max().item<double>();
      const double half_step = largest / Codes(*codec) / 2;
      EXPECT_LE((back - value).abs().max().item<double>(), half_step * 1.0001) << codec->name();
      EXPECT_NEAR(back.abs().max().item<double>(), largest, largest * 4e-5);
    }
  }
}

TEST(UniformCodecTest, ItsBytesAreTheStepAndTheCodes) {
  const at::Tensor value = at::randn({512});
  EXPECT_EQ(Uniform8Codec().Encode({"alpha", value})->bytes.size(), 4u + 512);
  EXPECT_EQ(Uniform4Codec().Encode({"alpha", value})->bytes.size(), 4u + 256);
  EXPECT_EQ(Uniform4Codec().Encode({"alpha", value.narrow(0, 0, 7)})->bytes.size(), 4u + 4);
}

TEST(UniformCodecTest, ZerosAndTheSmallestAndLargestNumbersComeBack) {
  for (const Codec* codec : kCodecs) {
    const at::Tensor zeros = at::zeros({5});
    EXPECT_TRUE(at::equal(*codec->Decode(*codec->Encode({"a", zeros})), zeros));
    for (const float extreme : {1e-30F, 1e30F, std::numeric_limits<float>::max() / 2}) {
      const at::Tensor value = at::full({3}, extreme);
      const at::Tensor back = *codec->Decode(*codec->Encode({"a", value}));
      EXPECT_TRUE(at::allclose(back, value, 1e-4, 0)) << extreme << codec->name();
    }
  }
}

TEST(UniformCodecTest, BytesThatNobodyPackedAreRefused) {
  const auto spoilt = [](const Codec& codec, size_t at, std::byte value) {
    BlockTensor tensor = *codec.Encode({"alpha", at::linspace(-1, 1, 5)});
    std::vector<std::byte> bytes(tensor.bytes.data(), tensor.bytes.data() + tensor.bytes.size());
    bytes.resize(std::max(bytes.size(), at + 1));
    bytes[at] = value;
    tensor.bytes = Blob::Adopt(std::move(bytes));
    return UnpackUniform(tensor).status();
  };
  for (const Codec* codec : kCodecs) {
    const size_t size = codec->Encode({"alpha", at::linspace(-1, 1, 5)})->bytes.size();
    EXPECT_NE(spoilt(*codec, size, std::byte{0}).message().find("bytes, wanted"),
              std::string::npos);
    EXPECT_NE(spoilt(*codec, 0, std::byte{1}).message().find("17 bits"), std::string::npos);
    EXPECT_NE(spoilt(*codec, 3, std::byte{0xBF}).message().find("from 0 up"), std::string::npos);
    EXPECT_NE(spoilt(*codec, 3, std::byte{0x7F}).message().find("step is"), std::string::npos);
  }
  EXPECT_NE(spoilt(Uniform8Codec(), 4, std::byte{0x80}).message().find("outside ±127"),
            std::string::npos);
  EXPECT_NE(spoilt(Uniform4Codec(), 4, std::byte{0x80}).message().find("outside ±7"),
            std::string::npos);
  EXPECT_NE(spoilt(Uniform4Codec(), 6, std::byte{0x7F}).message().find("padding"),
            std::string::npos);
}

TEST(UniformCodecTest, RandomBytesAreRefusedOrEncodeAgainToThemselves) {
  RandomStream random(4);
  int taken = 0;
  for (int turn = 0; turn < 2000; ++turn) {
    BlockTensor tensor{
        "alpha", DType::kFloat32, {6},
        Blob(),  std::nullopt,    std::string(turn % 2 == 0 ? kUniform8Packing : kUniform4Packing)};
    std::vector<std::byte> bytes(turn % 2 == 0 ? 10 : 7);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.NextU32());
    bytes[0] &= std::byte{0x80};
    bytes[3] &= std::byte{0x3F};
    tensor.bytes = Blob::Adopt(std::move(bytes));
    const Result<BlockTensor> plain = UnpackUniform(tensor);
    if (!plain.ok()) continue;
    ++taken;
    EXPECT_TRUE(IsFinite(*plain));
    const BlockTensor again = *UnpackUniform(PackUniform(*plain, tensor.packing));
    EXPECT_EQ(again.bytes.size(), plain->bytes.size());
  }
  EXPECT_GT(taken, 100);
}

}  // namespace
}  // namespace weft
