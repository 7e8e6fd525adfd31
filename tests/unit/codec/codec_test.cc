// Shape legend: R rank, I in, O out.

#include <limits>

#include <gtest/gtest.h>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"

namespace weft {
namespace {

at::Tensor Random(std::vector<int64_t> shape, std::string_view label) {
  RandomStream stream = RandomStream::Derive(7, {"codec-test", label});
  at::Tensor tensor = at::empty(shape, at::kFloat);
  for (int64_t i = 0; i < tensor.numel(); ++i) {
    tensor.mutable_data_ptr<float>()[i] = static_cast<float>(stream.Normal());
  }
  return tensor;
}

AdapterState TwoSites() {
  AdapterState state;
  state.spec.rank = 3;
  state.spec.alpha = 6;
  for (const char* path : {"layers.0.q_proj", "layers.1.q_proj"}) {
    state.sites.push_back(
        {{path, 5, 7},
         {{"A", Random({3, 5}, Str(path, "A"))}, {"B", Random({7, 3}, Str(path, "B"))}}});
  }
  return state;
}

TEST(CodecTest, EveryCodecEncodesToTheSameBytesAfterOneRoundTrip) {
  for (const Codec* codec : CodecRegistry()) {
    const Result<Blob> once = EncodeBundle({TwoSites(), std::nullopt}, *codec);
    ASSERT_TRUE(once.ok()) << once.status();
    const Result<AdapterBundle> decoded = DecodeBundle(*once, at::kCPU);
    ASSERT_TRUE(decoded.ok()) << decoded.status();
    const Result<Blob> twice = EncodeBundle(*decoded, *codec);
    ASSERT_TRUE(twice.ok()) << twice.status();
    EXPECT_EQ(once->view(), twice->view()) << codec->name();
  }
}

TEST(CodecTest, PrecisionLostIsThatOfTheFormat) {
  // Half an ulp, relative: 2^-24, 2^-11, 2^-8 ("round to nearest" of 24, 11 and 8 bit
  // significands).
  const std::vector<std::pair<const Codec*, double>> bounds = {
      {&Float32Codec(), 0.0}, {&Float16Codec(), 4.9e-4}, {&BFloat16Codec(), 3.91e-3}};
  const at::Tensor value = Random({64, 64}, "precision") + 3.0;
  for (const auto& [codec, bound] : bounds) {
    const Result<BlockTensor> encoded = codec->Encode({"A", value});
    ASSERT_TRUE(encoded.ok());
    EXPECT_EQ(encoded->bytes.size(), 64u * 64u * DTypeBytes(codec->dtype()));
    const Result<at::Tensor> back = codec->Decode(*encoded);
    ASSERT_TRUE(back.ok());
    const double error = ((*back - value).abs() / value.abs()).max().item<double>();
    EXPECT_LE(error, bound) << codec->name();
    EXPECT_GE(error, bound / 100) << codec->name() << " did not round at all";
  }
}

TEST(CodecTest, AViewHoldsWhatDecodingGivesAndLooksAtTheBytesWhereItCan) {
  for (const Codec* codec : CodecRegistry()) {
    BlockTensor encoded = *codec->Encode({"A", Random({5, 7}, "view")});
    const void* const bytes = encoded.bytes.data();
    const at::Tensor decoded = *codec->Decode(encoded);
    const at::Tensor view = *codec->View(encoded);
    encoded.bytes = Blob();  // the view keeps them alive
    EXPECT_TRUE(at::equal(view, decoded)) << codec->name();
    EXPECT_EQ(view.const_data_ptr() == bytes, codec == &Float32Codec()) << codec->name();
    EXPECT_NE(decoded.const_data_ptr(), bytes) << codec->name();
    encoded.shape = {5, 8};
    EXPECT_FALSE(codec->View(encoded).ok()) << codec->name();
  }
}

TEST(CodecTest, AValueTooLargeForFloat16IsRefusedWithAWayOut) {
  const at::Tensor value = at::full({2, 2}, 70000.0, at::kFloat);
  const Result<BlockTensor> encoded = Float16Codec().Encode({"B", value});
  ASSERT_FALSE(encoded.ok());
  EXPECT_EQ(encoded.status().code(), Code::kInvalidArgument);
  EXPECT_NE(encoded.status().message().find("use codec bfloat16"), std::string::npos);
  EXPECT_TRUE(BFloat16Codec().Encode({"B", value}).ok());
}

TEST(CodecTest, NothingThatIsNotFiniteIsEverEncoded) {
  for (const double bad :
       {std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
    AdapterState state = TwoSites();
    state.sites[1].Get("B").index_put_({2, 1}, bad);
    for (const Codec* codec : CodecRegistry()) {
      const Result<BlockSection> section = EncodeAdapter(state, kAdapterRole, *codec);
      ASSERT_FALSE(section.ok());
      EXPECT_NE(section.status().message().find("site layers.1.q_proj: tensor B"),
                std::string::npos)
          << section.status();
    }
  }
}

TEST(CodecTest, TensorsMayBeOfAnyLayoutAndPrecisionInMemory) {
  AdapterState state = TwoSites();
  AdapterState other = TwoSites();
  other.sites[0].Get("A") = other.sites[0].Get("A").t().contiguous().t().to(at::kDouble);
  EXPECT_EQ(*AdapterSha256(state), *AdapterSha256(other));
}

TEST(CodecTest, DecodedTensorsOwnTheirMemory) {
  const Result<Blob> bytes = EncodeBundle({TwoSites(), std::nullopt}, Float32Codec());
  const std::string before(bytes->view());
  Result<AdapterBundle> bundle = DecodeBundle(*bytes, at::kCPU);
  bundle->adapter->sites[0].Get("A").fill_(1);
  EXPECT_EQ(bytes->view(), before);
}

TEST(CodecTest, TheHashNamesEveryPartOfTheAdapter) {
  const std::string original = *AdapterSha256(TwoSites());
  AdapterState alpha = TwoSites();
  alpha.spec.alpha = 7;
  AdapterState value = TwoSites();
  value.sites[1].Get("A")[0][0] += 1;
  AdapterState order = TwoSites();
  std::swap(order.sites[0], order.sites[1]);
  AdapterState path = TwoSites();
  path.sites[0].site.path = "layers.2.q_proj";
  for (const AdapterState* other : {&alpha, &value, &order, &path}) {
    EXPECT_NE(original, *AdapterSha256(*other));
  }
  EXPECT_EQ(original, *AdapterSha256(TwoSites()));
}

TEST(CodecTest, ABundleKeepsItsFrozenPartApart) {
  AdapterState frozen = TwoSites();
  frozen.spec.alpha = 3;
  const Result<Blob> bytes = EncodeBundle({TwoSites(), frozen}, Float32Codec());
  const Result<AdapterBundle> bundle = DecodeBundle(*bytes, at::kCPU);
  ASSERT_TRUE(bundle.ok()) << bundle.status();
  EXPECT_EQ(bundle->adapter->spec.alpha, 6);
  EXPECT_EQ(bundle->frozen->spec.alpha, 3);
  const Result<Blob> neither = EncodeBundle({}, Float32Codec());
  const Result<AdapterBundle> empty = DecodeBundle(*neither, at::kCPU);
  ASSERT_TRUE(empty.ok()) << empty.status();
  EXPECT_FALSE(empty->adapter || empty->frozen);
}

TEST(CodecTest, ABundleWhoseTensorsContradictItsSpecIsRefused) {
  AdapterState state = TwoSites();
  state.spec.rank = 4;  // the tensors are of rank 3
  const Result<Blob> bytes = EncodeBundle({state, std::nullopt}, Float32Codec());
  const Result<AdapterBundle> bundle = DecodeBundle(*bytes, at::kCPU);
  ASSERT_FALSE(bundle.ok());
  EXPECT_NE(bundle.status().message().find("site layers.0.q_proj: A is [3×5], the plan says [4×5]"),
            std::string::npos)
      << bundle.status();
}

TEST(CodecTest, AnUnknownCodecIsNamedBesideTheKnownOnes) {
  const Result<const Codec*> codec = FindCodec("float8");
  ASSERT_FALSE(codec.ok());
  EXPECT_EQ(codec.status().code(), Code::kNotFound);
  EXPECT_NE(codec.status().message().find("float32, float16, bfloat16"), std::string::npos);
}

}  // namespace
}  // namespace weft
