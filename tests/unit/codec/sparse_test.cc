#include "common/codec/sparse.h"

#include <array>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/packing.h"
#include "common/codec/precision.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

// Those that leave zeros as they are.
const std::vector<const Codec*> kPlainCodecs = {&Float32Codec(), &Float16Codec(), &BFloat16Codec()};

// Values at exactly `count` places, drawn from `seed`.
at::Tensor Sparse(std::vector<int64_t> shape, int64_t count, uint64_t seed) {
  RandomStream draw(seed);
  at::Tensor flat = at::zeros({c10::multiply_integers(shape)}, at::kFloat);
  for (int64_t left = count; left > 0;) {
    float& value = flat.mutable_data_ptr<float>()[draw.Below(static_cast<uint64_t>(flat.numel()))];
    if (value != 0) continue;
    value = static_cast<float>(draw.Normal() + 5);
    --left;
  }
  return flat.view(shape);
}

BlockTensor Plain(const at::Tensor& value, const Codec& codec = Float32Codec()) {
  return *codec.Encode({"A", value});
}

BlockTensor PackedOf(const at::Tensor& value) {
  std::optional<BlockTensor> packed = PackSparse(Plain(value));
  WEFT_CHECK(packed.has_value());
  return *packed;
}

// The packed tensor with other bytes.
BlockTensor With(const BlockTensor& packed, const std::function<void(std::string&)>& change) {
  std::string bytes(packed.bytes.view());
  change(bytes);
  BlockTensor changed = packed;
  changed.bytes = Blob::Copy(bytes);
  return changed;
}

void ExpectRefused(const BlockTensor& packed, const std::string& what) {
  const Status status = UnpackSparse(packed).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument) << what;
  EXPECT_NE(status.message().find(what), std::string::npos) << status;
  EXPECT_NE(status.message().find("tensor A"), std::string::npos) << status;
}

// log2 of n over k.
double Log2Choose(double n, double k) {
  return (std::lgamma(n + 1) - std::lgamma(k + 1) - std::lgamma(n - k + 1)) / std::log(2.0);
}

TEST(SparseTest, EveryDensityTypeAndShapeComesBackBitForBit) {
  for (const Codec* codec : kPlainCodecs) {
    if (!codec->elementwise()) continue;  // packs by itself
    for (const std::vector<int64_t>& shape :
         std::vector<std::vector<int64_t>>{{8, 576}, {576, 8}, {1, 1000}, {33}, {3, 5, 7}}) {
      const int64_t numel = c10::multiply_integers(shape);
      for (const int64_t count : {int64_t{0}, int64_t{1}, numel / 20, numel / 4, numel / 2}) {
        const BlockTensor plain = Plain(Sparse(shape, count, 1), *codec);
        const std::optional<BlockTensor> packed = PackSparse(plain);
        ASSERT_TRUE(packed.has_value()) << count << " of " << numel;
        EXPECT_EQ(packed->packing, "sparse");
        EXPECT_LT(packed->bytes.size(), plain.bytes.size());
        EXPECT_EQ(packed->bytes.size(), SparseBytes(static_cast<uint64_t>(numel),
                                                    static_cast<uint64_t>(count), codec->dtype()));
        EXPECT_LE(packed->bytes.size(), PackedBytesMax(codec->dtype(), shape));
        const Result<BlockTensor> back = UnpackSparse(*packed);
        ASSERT_TRUE(back.ok()) << back.status();
        EXPECT_EQ(back->bytes.view(), plain.bytes.view());
        EXPECT_TRUE(at::equal(*codec->View(*packed), *codec->View(plain)));
        EXPECT_TRUE(at::equal(*codec->Decode(*packed), *codec->Decode(plain)));
      }
    }
  }
}

TEST(SparseTest, WhatIsNotShorterStaysPlain) {
  EXPECT_FALSE(PackSparse(Plain(Sparse({8, 64}, 512, 2))).has_value());
  EXPECT_FALSE(PackSparse(Plain(Sparse({8, 64}, 500, 2))).has_value());  // 48 B saved, 64 B spent
  EXPECT_TRUE(PackSparse(Plain(Sparse({8, 64}, 490, 2))).has_value());
  EXPECT_FALSE(PackSparse(Plain(at::zeros({0, 4}))).has_value());
  EXPECT_EQ(Packed(Plain(Sparse({8, 64}, 512, 2))).packing, "");
}

// The least that any code needs: the elements, and which of the C(N, K) supports it is.
TEST(SparseTest, BytesAreWithinTwoPercentOfTheInformation) {
  for (const auto& [rows, length, kept] :
       std::vector<std::array<int64_t, 3>>{{8, 4096, 206}, {8, 576, 30}, {16, 2048, 103}}) {
    const double elements = static_cast<double>(rows * length);
    const double count = static_cast<double>(rows * kept);
    const double least = 4 * count + Log2Choose(elements, count) / 8;
    const auto bytes =
        static_cast<double>(PackedOf(Sparse({rows, length}, rows * kept, 3)).bytes.size());
    EXPECT_LE(bytes, 1.02 * least + 5) << rows << "×" << length;
    EXPECT_GE(bytes, least);
  }
}

TEST(SparseTest, TheSizeFollowsFromTheCountWhereverTheElementsStand) {
  const size_t wanted = PackedOf(Sparse({8, 576}, 240, 1)).bytes.size();
  for (uint64_t seed = 2; seed < 20; ++seed) {
    EXPECT_EQ(PackedOf(Sparse({8, 576}, 240, seed)).bytes.size(), wanted);
  }
  at::Tensor together = at::zeros({8, 576});
  together.view({-1}).narrow(0, 0, 240).fill_(1);
  EXPECT_EQ(PackedOf(together).bytes.size(), wanted);
}

TEST(SparseTest, MinusZeroIsAnElement) {
  at::Tensor value = at::zeros({4, 50});
  value[1][3] = -0.0;
  const BlockTensor plain = Plain(value);
  EXPECT_EQ(UnpackSparse(PackedOf(value))->bytes.view(), plain.bytes.view());
  EXPECT_NE(plain.bytes.view(), Plain(at::zeros({4, 50})).bytes.view());
}

// 100 elements, 4 of them set: l = ⌊log2 25⌋ = 4, four bytes of head and count, 2 bytes of low
// halves, 4 + (99 >> 4) = 10 bits of steps.
class SparseGapsTest : public ::testing::Test {
 protected:
  SparseGapsTest() {
    at::Tensor value = at::zeros({100});
    for (const int64_t p : {3, 17, 18, 99}) value[p] = static_cast<double>(p);
    packed_ = PackedOf(value);
  }
  BlockTensor packed_;
};

TEST_F(SparseGapsTest, TheBytesAreAsTheHeaderSays) {
  ASSERT_EQ(packed_.bytes.size(), 5u + 2 + 2 + 16);
  EXPECT_EQ(packed_.bytes.view().substr(0, 9),
            std::string_view("\x01\x04\x00\x00\x00\x13\x32\x0d\x02", 9));
}

TEST_F(SparseGapsTest, PositionsOutOfRangeUnsortedOrRepeatedAreRefused) {
  // The low half of 99 is 3, in the upper half of byte 6; 15 makes it 111.
  ExpectRefused(With(packed_, [](std::string& b) { b[6] = static_cast<char>(0xF2); }),
                "position 111 is out of range");
  ExpectRefused(With(packed_, [](std::string& b) { b[6] = 0x31; }), "17 comes behind 17");
  ExpectRefused(With(packed_, [](std::string& b) { b[6] = 0x30; }), "16 comes behind 17");
  ExpectRefused(With(packed_, [](std::string& b) { b[8] = 0x00; }), "3 positions, its head says 4");
  ExpectRefused(With(packed_, [](std::string& b) { b[7] = 0x1d; }), "5 positions, its head says 4");
  ExpectRefused(With(packed_, [](std::string& b) { b[8] = 0x06; }), "padding");
}

TEST_F(SparseGapsTest, HeadsAndLengthsThatDoNotFitAreRefused) {
  ExpectRefused(With(packed_, [](std::string& b) { b.resize(4); }), "too few for a head");
  ExpectRefused(With(packed_, [](std::string& b) { b.clear(); }), "too few for a head");
  ExpectRefused(With(packed_, [](std::string& b) { b[0] = 0; }), "form 0, wanted 1");
  ExpectRefused(With(packed_, [](std::string& b) { b[0] = 7; }), "form 7, wanted 1");
  ExpectRefused(With(packed_, [](std::string& b) { b[1] = 101; }), "says 101 of 100 elements");
  ExpectRefused(With(packed_, [](std::string& b) { b[1] = 3; }), "wanted");
  ExpectRefused(With(packed_, [](std::string& b) { b.pop_back(); }), "got 24, wanted 25");
  ExpectRefused(With(packed_, [](std::string& b) { b.push_back(0); }), "got 26, wanted 25");
  ExpectRefused(With(packed_, [](std::string& b) { b.replace(9, 4, 4, '\0'); }),
                "element at 3 is zero");
  BlockTensor small = packed_;
  small.shape = {3};
  ExpectRefused(small, "says 4 of 3 elements");
  BlockTensor huge = packed_;
  huge.shape = {int64_t{1} << 31, 2};
  ExpectRefused(huge, "more than can be packed");
}

TEST(SparseBitmaskTest, MasksThatDoNotFitTheirHeadAreRefused) {
  const BlockTensor packed = PackedOf(Sparse({20}, 10, 5));  // 3 bytes of mask, 20 bits used
  ASSERT_EQ(packed.bytes.data()[0], std::byte{0});
  ExpectRefused(With(packed, [](std::string& b) { b[7] = static_cast<char>(b[7] | 0x80); }),
                "out of range");
  ExpectRefused(With(packed, [](std::string& b) { b[5] = static_cast<char>(b[5] ^ 1); }),
                "its head says 10");
}

TEST(PackingTest, NothingThatIsNotFiniteComesOutOfAPackedTensor) {
  const BlockTensor packed = PackedOf(Sparse({8, 100}, 40, 6));
  for (const float bad : {std::nanf(""), std::numeric_limits<float>::infinity()}) {
    const BlockTensor changed = With(packed, [&](std::string& b) {
      std::memcpy(b.data() + b.size() - sizeof(bad), &bad, sizeof(bad));
    });
    EXPECT_TRUE(UnpackSparse(changed).ok());
    EXPECT_NE(Unpacked(changed).status().message().find("tensor A: got NaN"), std::string::npos);
    EXPECT_EQ(Float32Codec().View(changed).status().code(), Code::kInvalidArgument);
    EXPECT_FALSE(IsZero(changed));
  }
}

TEST(PackingTest, UnknownPackingsAreNamed) {
  BlockTensor packed = PackedOf(Sparse({8, 100}, 40, 6));
  packed.packing = "holes";
  EXPECT_NE(Unpacked(packed).status().message().find("packed as \"holes\"; known: sparse"),
            std::string::npos);
  EXPECT_EQ(Float32Codec().Decode(packed).status().code(), Code::kInvalidArgument);
}

TEST(PackingTest, ZeroTensorsAreSeenInEitherForm) {
  const BlockTensor plain = Plain(at::zeros({8, 64}));
  const BlockTensor packed = Packed(plain);
  EXPECT_EQ(packed.bytes.size(), 5u);
  EXPECT_TRUE(IsZero(plain));
  EXPECT_TRUE(IsZero(packed));
  const BlockTensor negative = Plain(-at::zeros({8, 64}));
  EXPECT_TRUE(IsZero(negative)) << "-0 is a zero";
  EXPECT_TRUE(IsZero(Packed(negative)));
  EXPECT_FALSE(IsZero(Plain(at::full({8}, 1e-45)))) << "the least denormal is none";
  EXPECT_FALSE(IsZero(PackedOf(Sparse({8, 64}, 1, 1))));
}

// Any bytes: refused, or the one form of what they hold.
TEST(PackingTest, MutatedBytesAreRefusedOrAreOtherTensorsInTheirOnlyForm) {
  RandomStream draw(11);
  int64_t accepted = 0;
  for (int64_t round = 0; round < 4000; ++round) {
    const auto numel = static_cast<int64_t>(8 + draw.Below(300));
    const auto count = static_cast<int64_t>(draw.Below(static_cast<uint64_t>(numel / 2)));
    const BlockTensor packed = PackedOf(Sparse({numel}, count, draw.NextU64()));
    const BlockTensor changed = With(packed, [&](std::string& b) {
      for (uint64_t i = 0; i < 1 + draw.Below(3); ++i) {
        const size_t at = draw.Below(b.size());
        b[at] = static_cast<char>(draw.NextU64());
        if (draw.Below(16) == 0) b.resize(draw.Below(b.size() + 8));
        if (b.empty()) break;
      }
    });
    const Result<BlockTensor> plain = UnpackSparse(changed);
    if (!plain.ok()) continue;
    ++accepted;
    const std::optional<BlockTensor> again = PackSparse(*plain);
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->bytes.view(), changed.bytes.view());
  }
  EXPECT_GT(accepted, 400);  // changed values
  EXPECT_LT(accepted, 3600);
}

AdapterState SparseState() {
  AdapterState state;
  state.spec.method = "roselora";
  state.spec.rank = 8;
  state.spec.target_modules = {"q_proj"};
  for (const int64_t layer : {0, 1}) {
    state.sites.push_back({{Str("layers.", layer, ".q_proj"), 200, 300},
                           {{"A", Sparse({8, 200}, 88, 7)}, {"B", Sparse({300, 8}, 128, 8)}}});
  }
  return state;
}

TEST(PackingTest, BundlesCarrySparseFactorsPackedAndHashesDoNotSeeIt) {
  for (const Codec* codec : kPlainCodecs) {
    if (!codec->elementwise()) continue;  // packs by itself
    const Result<Blob> bytes = EncodeBundle({SparseState(), std::nullopt}, *codec);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const size_t plain = 2 * 8 * (200 + 300) * DTypeBytes(codec->dtype());
    EXPECT_LT(bytes->size(), plain / 4) << codec->name();
    const Result<TensorBlock> block = DecodeTensorBlock(*bytes);
    ASSERT_TRUE(block.ok()) << block.status();
    EXPECT_EQ(block->sections[0].sites[1].tensors[1].packing, "sparse");
    EXPECT_TRUE(CheckPacked(*block).ok());
    const Result<AdapterBundle> back = DecodeBundle(*bytes, at::kCPU);
    ASSERT_TRUE(back.ok()) << back.status();
    EXPECT_EQ(EncodeBundle(*back, *codec)->view(), bytes->view());
    if (codec == &Float32Codec()) {
      EXPECT_EQ(*AdapterSha256(*back->adapter), *AdapterSha256(SparseState()));
    }
  }
}

TEST(PackingTest, PackedTensorsOfABlockAreCheckedBySiteAndName) {
  Result<Blob> bytes = EncodeBundle({SparseState(), std::nullopt}, Float32Codec());
  TensorBlock block = *DecodeTensorBlock(*bytes);
  BlockTensor& tensor = block.sections[0].sites[1].tensors[1];
  tensor = With(tensor, [](std::string& b) { b[0] = 3; });
  const Status status = CheckPacked(block);
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("adapter layers.1.q_proj: tensor B"), std::string::npos)
      << status;
  const Blob again = EncodeTensorBlock(block, BlockForm::kCompact);
  EXPECT_EQ(DecodeBundle(again, at::kCPU).status().code(), Code::kInvalidArgument);
}

}  // namespace
}  // namespace weft
