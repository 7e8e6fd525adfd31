#include "common/wire/tensor_block.h"

#include <cstring>
#include <limits>

#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "common/crypto/digest.h"
#include "tests/unit/wire/random_blocks.h"

namespace weft {
namespace {

void ExpectEqualTensors(const std::vector<BlockTensor>& a, const std::vector<BlockTensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].name, b[i].name);
    EXPECT_EQ(a[i].dtype, b[i].dtype);
    EXPECT_EQ(a[i].shape, b[i].shape);
    EXPECT_EQ(a[i].bytes.view(), b[i].bytes.view());
  }
}

void ExpectEqualBlocks(const TensorBlock& a, const TensorBlock& b) {
  EXPECT_EQ(a.codec, b.codec);
  ASSERT_EQ(a.sections.size(), b.sections.size());
  for (size_t s = 0; s < a.sections.size(); ++s) {
    EXPECT_EQ(a.sections[s].role, b.sections[s].role);
    EXPECT_EQ(a.sections[s].spec, b.sections[s].spec);
    ASSERT_EQ(a.sections[s].sites.size(), b.sections[s].sites.size());
    for (size_t i = 0; i < a.sections[s].sites.size(); ++i) {
      EXPECT_EQ(a.sections[s].sites[i].site, b.sections[s].sites[i].site);
      ExpectEqualTensors(a.sections[s].sites[i].tensors, b.sections[s].sites[i].tensors);
    }
    ExpectEqualTensors(a.sections[s].dense, b.sections[s].dense);
  }
}

// One site with A [2×3] and B [3×2] of float32 ones.
TensorBlock SmallBlock() {
  const std::vector<float> ones(6, 1.0f);
  const Blob bytes = Blob::Copy(std::as_bytes(std::span(ones)));
  TensorBlock block;
  BlockSection& section = block.sections.emplace_back();
  section.role = "adapter";
  section.sites.push_back(
      {{"layers.0.q_proj", 3, 3},
       {{"A", DType::kFloat32, {2, 3}, bytes}, {"B", DType::kFloat32, {3, 2}, bytes}}});
  return block;
}

std::string Refusal(const TensorBlock& block) {
  const Result<TensorBlock> back = DecodeTensorBlock(EncodeTensorBlock(block));
  EXPECT_FALSE(back.ok());
  return back.ok() ? "" : back.status().message();
}

std::vector<std::byte> Bytes(const Blob& blob) { return {blob.data(), blob.data() + blob.size()}; }

TEST(TensorBlockTest, RandomBlocksComeBackEqualAndEncodeToTheSameBytes) {
  RandomStream random(21);
  for (int turn = 0; turn < 300; ++turn) {
    const TensorBlock block = RandomBlock(random);
    const Blob bytes = EncodeTensorBlock(block);
    const Result<TensorBlock> back = DecodeTensorBlock(bytes);
    ASSERT_TRUE(back.ok()) << back.status();
    ExpectEqualBlocks(block, *back);
    EXPECT_EQ(EncodeTensorBlock(*back).view(), bytes.view());
    EXPECT_EQ(TensorBlockSha256(block), Sha256Hex(bytes.span()));
  }
}

TEST(TensorBlockTest, ItsHashIsTheSameInEveryVersionOfThisProgram) {
  // It changes only if the format does (or a default of AdapterSpec), and then kManifestVersion
  // must too.
  EXPECT_EQ(Sha256Hex(EncodeTensorBlock(SmallBlock()).span()),
            "281ece369598638578bfadb66a2fc59347a5c7b919232f4acabdb0f6429d0c7c");
}

TEST(TensorBlockTest, RandomBlocksComeBackFromTheirCompactForm) {
  RandomStream random(27);
  for (int turn = 0; turn < 300; ++turn) {
    const TensorBlock block = RandomBlock(random);
    const Blob bytes = EncodeTensorBlock(block, BlockForm::kCompact);
    const Result<TensorBlock> back = DecodeTensorBlock(bytes);
    ASSERT_TRUE(back.ok()) << back.status();
    ExpectEqualBlocks(block, *back);
    EXPECT_EQ(EncodeTensorBlock(*back, BlockForm::kCompact).view(), bytes.view());
    EXPECT_EQ(TensorBlockSha256(*back), TensorBlockSha256(block));
  }
}

// 200 layers with 64 numbers each: the canonical list of contents alone outweighs them.
TEST(TensorBlockTest, TheCompactFormOfManySmallTensorsIsHardlyLargerThanTheirNumbers) {
  TensorBlock block;
  BlockSection& section = block.sections.emplace_back();
  section.role = "adapter";
  RandomStream random(28);
  uint64_t content = 0;
  for (int i = 0; i < 200; ++i) {
    BlockSite& site = section.sites.emplace_back();
    site.site = {"model.layers." + std::to_string(i) + ".self_attn.q_proj", 576, 576};
    for (const char* name : {"alpha", "beta"}) {
      std::vector<std::byte> bytes(64 * 4);
      for (std::byte& byte : bytes) byte = static_cast<std::byte>(random.NextU32());
      content += bytes.size();
      site.tensors.push_back({name, DType::kFloat32, {64}, Blob::Adopt(std::move(bytes))});
    }
  }
  EXPECT_GT(EncodeTensorBlock(block).size(), 13 * content / 10);
  EXPECT_LT(EncodeTensorBlock(block, BlockForm::kCompact).size(), content + 4096);
}

TEST(TensorBlockTest, ACompactBlockCutAtAnyByteOrWithABitFlippedInItsManifestIsRefused) {
  const Blob whole = EncodeTensorBlock(SmallBlock(), BlockForm::kCompact);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(DecodeTensorBlock(whole.Slice(0, length)).ok()) << length;
  }
  RandomStream random(29);
  for (int turn = 0; turn < 500; ++turn) {
    std::vector<std::byte> bytes = Bytes(whole);
    bytes[random.Below(bytes.size())] ^= static_cast<std::byte>(1u << random.Below(8));
    const Result<TensorBlock> back = DecodeTensorBlock(Blob::Adopt(std::move(bytes)));
    if (!back.ok()) continue;
    EXPECT_EQ(EncodeTensorBlock(*back).size(), EncodeTensorBlock(SmallBlock()).size());
  }
}

TEST(TensorBlockTest, AManifestThatWouldGrowTooLargeIsRefusedBeforeMemoryIsTaken) {
  std::vector<std::byte> bytes = Bytes(EncodeTensorBlock(SmallBlock(), BlockForm::kCompact));
  // The frame's header byte says that an 8-byte content size follows: 2^56 bytes.
  std::vector<std::byte> huge(bytes.begin(), bytes.begin() + 8);
  const std::string frame("\x28\xB5\x2F\xFD\xE0\0\0\0\0\0\0\0\1\1\0\0", 16);
  huge.resize(16);
  huge[8] = static_cast<std::byte>(frame.size());
  for (const char c : frame) huge.push_back(static_cast<std::byte>(c));
  const Status status = DecodeTensorBlock(Blob::Adopt(std::move(huge))).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("compressed manifest"), std::string::npos) << status;
}

// Site 1 uses the tensor of site 0.
TensorBlock SharingBlock(size_t with) {
  TensorBlock block = SmallBlock();
  BlockSite second = block.sections[0].sites[0];
  second.site.path = "layers.1.q_proj";
  for (BlockTensor& tensor : second.tensors) tensor.shared_with = with;
  block.sections[0].sites.push_back(std::move(second));
  return block;
}

TEST(TensorBlockTest, ASharedTensorIsStoredOnce) {
  const TensorBlock block = SharingBlock(0);
  for (const BlockForm form : {BlockForm::kCanonical, BlockForm::kCompact}) {
    const Result<TensorBlock> back = DecodeTensorBlock(EncodeTensorBlock(block, form));
    ASSERT_TRUE(back.ok()) << back.status();
    const std::vector<BlockSite>& sites = back->sections[0].sites;
    for (size_t t = 0; t < 2; ++t) {
      EXPECT_FALSE(sites[0].tensors[t].shared_with.has_value());
      EXPECT_EQ(sites[1].tensors[t].shared_with, 0u);
      EXPECT_EQ(sites[1].tensors[t].bytes.data(), sites[0].tensors[t].bytes.data());
    }
    EXPECT_EQ(EncodeTensorBlock(*back, form).view(), EncodeTensorBlock(block, form).view());
  }
  TensorBlock apart = block;
  for (BlockTensor& tensor : apart.sections[0].sites[1].tensors) tensor.shared_with.reset();
  EXPECT_GT(EncodeTensorBlock(apart).size(), EncodeTensorBlock(block).size());
}

TEST(TensorBlockTest, ATensorSharedWithNoEarlierSiteOrUnlikeItsOwnersIsRefused) {
  EXPECT_NE(Refusal(SharingBlock(1)).find("no earlier one"), std::string::npos);
  EXPECT_NE(Refusal(SharingBlock(7)).find("no earlier one"), std::string::npos);
  TensorBlock other = SharingBlock(0);
  other.sections[0].sites[1].tensors[0].shape = {3, 2};
  EXPECT_NE(Refusal(other).find("holds no such tensor"), std::string::npos);
  TensorBlock unnamed = SharingBlock(0);
  unnamed.sections[0].sites[1].tensors[0].name = "C";
  EXPECT_NE(Refusal(unnamed).find("holds no such tensor"), std::string::npos);
  TensorBlock dense = SmallBlock();
  dense.sections[0].dense = {dense.sections[0].sites[0].tensors[0]};
  dense.sections[0].dense[0].shared_with = 5;
  EXPECT_NE(Refusal(dense).find("no earlier one"), std::string::npos);
}

TEST(TensorBlockTest, APackedTensorIsAnyLengthUpToWhatItCanNeed) {
  TensorBlock block = SmallBlock();
  BlockTensor& tensor = block.sections[0].sites[0].tensors[0];
  tensor.packing = "odd";
  tensor.bytes = Blob::Adopt(std::string(5, 'x'));
  const Result<TensorBlock> back = DecodeTensorBlock(EncodeTensorBlock(block));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->sections[0].sites[0].tensors[0].packing, "odd");
  EXPECT_EQ(back->sections[0].sites[0].tensors[0].bytes.size(), 5u);
  EXPECT_EQ(PackedBytesMax(DType::kFloat32, {2, 3}), 24u + 0 + 64);
}

TEST(TensorBlockTest, PackedTensorsThatWouldNotFitIntoAnyPayloadAreRefusedBeforeMemoryIsTaken) {
  TensorBlock block = SmallBlock();
  for (BlockTensor& tensor : block.sections[0].sites[0].tensors) {
    tensor.packing = "odd";
    tensor.shape = {int64_t{5} << 28, 1};  // 5 GiB of float32
    tensor.bytes = Blob::Adopt(std::string(5, 'x'));
  }
  EXPECT_NE(Refusal(block).find("unpacked, at most"), std::string::npos);
  block.sections[0].sites[0].tensors.pop_back();
  EXPECT_TRUE(DecodeTensorBlock(EncodeTensorBlock(block)).ok());
}

TEST(TensorBlockTest, TensorsShareTheBlockAndLieOn64Bytes) {
  const Blob bytes = EncodeTensorBlock(SmallBlock());
  const Result<TensorBlock> back = DecodeTensorBlock(bytes);
  ASSERT_TRUE(back.ok());
  for (const BlockTensor& tensor : back->sections[0].sites[0].tensors) {
    EXPECT_GE(tensor.bytes.data(), bytes.data());
    EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), bytes.data() + bytes.size());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes.data()) % 64, 0u);
  }
}

TEST(TensorBlockTest, ABlockCutAtAnyByteIsRefused) {
  const Blob whole = EncodeTensorBlock(SmallBlock());
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(DecodeTensorBlock(whole.Slice(0, length)).ok()) << length;
  }
}

TEST(TensorBlockTest, AByteBehindTheEndIsRefused) {
  std::vector<std::byte> bytes = Bytes(EncodeTensorBlock(SmallBlock()));
  bytes.push_back(std::byte{0});
  const Result<TensorBlock> back = DecodeTensorBlock(Blob::Adopt(std::move(bytes)));
  ASSERT_FALSE(back.ok());
  EXPECT_NE(back.status().message().find("the manifest says"), std::string::npos);
}

TEST(TensorBlockTest, MutatedBlocksAreRefusedOrEncodeAgain) {
  RandomStream random(22);
  const std::vector<std::byte> whole = Bytes(EncodeTensorBlock(SmallBlock()));
  int refused = 0;
  for (int turn = 0; turn < 20000; ++turn) {
    std::vector<std::byte> bytes = whole;
    const uint64_t changes = 1 + random.Below(6);
    for (uint64_t i = 0; i < changes; ++i) {
      bytes[random.Below(bytes.size())] = static_cast<std::byte>(random.NextU32());
    }
    const Result<TensorBlock> back = DecodeTensorBlock(Blob::Adopt(std::move(bytes)));
    if (!back.ok()) {
      ++refused;
      continue;
    }
    EXPECT_TRUE(DecodeTensorBlock(EncodeTensorBlock(*back)).ok());
  }
  EXPECT_GT(refused, 5000);
}

TEST(TensorBlockTest, AHostileManifestLengthIsRefusedBeforeItIsBelieved) {
  for (const uint64_t length : {uint64_t{0}, uint64_t{1} << 63, ~uint64_t{0}, uint64_t{1} << 40}) {
    std::vector<std::byte> bytes = Bytes(EncodeTensorBlock(SmallBlock()));
    std::memcpy(bytes.data() + 8, &length, 8);
    EXPECT_FALSE(DecodeTensorBlock(Blob::Adopt(std::move(bytes))).ok()) << length;
  }
}

TEST(TensorBlockTest, DuplicatesAreRefusedByName) {
  TensorBlock twice_tensor = SmallBlock();
  twice_tensor.sections[0].sites[0].tensors[1].name = "A";
  EXPECT_NE(Refusal(twice_tensor).find("layers.0.q_proj: got tensor \"A\" twice"),
            std::string::npos);
  TensorBlock twice_site = SmallBlock();
  twice_site.sections[0].sites.push_back(twice_site.sections[0].sites[0]);
  EXPECT_NE(Refusal(twice_site).find("got site \"layers.0.q_proj\" twice"), std::string::npos);
  TensorBlock twice_section = SmallBlock();
  twice_section.sections.push_back(twice_section.sections[0]);
  EXPECT_NE(Refusal(twice_section).find("got \"adapter\" twice"), std::string::npos);
}

TEST(TensorBlockTest, ShapesAndCountsOverTheirLimitAreRefused) {
  TensorBlock deep = SmallBlock();
  deep.sections[0].sites[0].tensors[0].shape = {1, 1, 1, 1, 1, 1, 1, 2, 3};
  EXPECT_NE(Refusal(deep).find("shape: got 9 elements"), std::string::npos);
  TensorBlock many = SmallBlock();
  auto& tensors = many.sections[0].sites[0].tensors;
  while (tensors.size() <= limits::kTensorsPerSiteMax) {
    tensors.push_back({Str("t", tensors.size()), DType::kUInt8, {0}, Blob()});
  }
  EXPECT_NE(Refusal(many).find("tensors: got 65 elements"), std::string::npos);
  TensorBlock huge = SmallBlock();
  huge.sections[0].sites[0].tensors[0].shape = {0, int64_t{1} << 62};
  huge.sections[0].sites[0].tensors[0].bytes = Blob();
  EXPECT_THROW((void)EncodeTensorBlock(huge), CheckFailure);
}

TEST(TensorBlockTest, PaddingThatIsNotZeroIsRefused) {
  const Blob whole = EncodeTensorBlock(SmallBlock());
  const Result<TensorBlock> block = DecodeTensorBlock(whole);
  ASSERT_TRUE(block.ok());
  const auto& b = block->sections[0].sites[0].tensors[1].bytes;
  std::vector<std::byte> bytes = Bytes(whole);
  bytes[static_cast<size_t>(b.data() - whole.data()) - 1] = std::byte{1};
  const Result<TensorBlock> back = DecodeTensorBlock(Blob::Adopt(std::move(bytes)));
  ASSERT_FALSE(back.ok());
  EXPECT_NE(back.status().message().find("padding"), std::string::npos);
}

TEST(TensorBlockTest, BytesThatDoNotMatchTheShapeAreABug) {
  TensorBlock block = SmallBlock();
  block.sections[0].sites[0].tensors[0].shape = {2, 4};
  EXPECT_THROW((void)EncodeTensorBlock(block), CheckFailure);
}

template <typename Word>
void ExpectFound(DType dtype, Word ordinary, const std::vector<Word>& bad,
                 const std::vector<Word>& good) {
  for (const size_t count : {size_t{1}, size_t{63}, size_t{5000}}) {
    for (const size_t at : {size_t{0}, count / 2, count - 1}) {
      const auto verdict = [&](Word word) {
        std::vector<Word> words(count, ordinary);
        words[at] = word;
        TensorBlock block = SmallBlock();
        block.sections[0].sites[0].tensors[1] = {
            "B", dtype, {static_cast<int64_t>(count)}, Blob::Copy(std::as_bytes(std::span(words)))};
        return CheckFinite(block);
      };
      for (const Word word : bad) {
        EXPECT_EQ(verdict(word).code(), Code::kInvalidArgument) << DTypeName(dtype) << " " << +word;
      }
      for (const Word word : good)
        EXPECT_TRUE(verdict(word).ok()) << DTypeName(dtype) << " " << +word;
    }
  }
}

TEST(CheckFiniteTest, FindsOneNanOrInfinityAnywhereInAnyFloatingType) {
  ExpectFound<uint64_t>(
      DType::kFloat64, 0x3FF0000000000000,
      {0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000000, 0xFFF0000000000001},
      {0, 0x8000000000000000, 1, 0x7FEFFFFFFFFFFFFF, 0xFFEFFFFFFFFFFFFF});
  ExpectFound<uint32_t>(DType::kFloat32, 0x3F800000,
                        {0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001},
                        {0, 0x80000000, 1, 0x7F7FFFFF, 0xFF7FFFFF});
  ExpectFound<uint16_t>(DType::kFloat16, 0x3C00, {0x7C00, 0xFC00, 0x7E00, 0xFC01},
                        {0, 0x8000, 1, 0x7BFF, 0xFBFF});
  ExpectFound<uint16_t>(DType::kBFloat16, 0x3F80, {0x7F80, 0xFF80, 0x7FC0, 0xFF81},
                        {0, 0x8000, 1, 0x7F7F, 0xFF7F});
  ExpectFound<uint32_t>(DType::kInt32, 0, {}, {0x7F800000, 0xFFFFFFFF});
}

TEST(CheckFiniteTest, NamesSectionSiteAndTensor) {
  TensorBlock block = SmallBlock();
  const std::vector<float> values = {1, 2, 3, 4, 5, std::numeric_limits<float>::infinity()};
  block.sections[0].sites[0].tensors[1].bytes = Blob::Copy(std::as_bytes(std::span(values)));
  EXPECT_NE(CheckFinite(block).message().find("adapter layers.0.q_proj B"), std::string::npos);
}

TEST(CheckFiniteTest, BytesThatAreNotAlignedAreReadAsWell) {
  std::vector<std::byte> bytes(1 + 4 * 6);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(bytes.data() + 1 + 8, &nan, 4);
  TensorBlock block = SmallBlock();
  block.sections[0].sites[0].tensors[0].bytes = Blob::Adopt(std::move(bytes)).Slice(1, 24);
  EXPECT_FALSE(CheckFinite(block).ok());
}

}  // namespace
}  // namespace weft
