// Model files beyond single cases: random configurations of every family laid out, written, checked
// and broken in every place; files of random tensors; rotations of random settings.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <numbers>
#include <set>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/base/random.h"
#include "common/formats/model_layout.h"
#include "common/formats/rope.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::HasSubstr;
using testing::TempFolder;
using Json = nlohmann::json;

constexpr const char* kFamilies[] = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM",
                                     "Qwen3ForCausalLM", "GPT2LMHeadModel"};

ModelConfig RandomConfig(RandomStream& random) {
  const std::string architecture = kFamilies[random.Below(5)];
  const auto side = [&](uint64_t most) { return static_cast<int64_t>(1 + random.Below(most)); };
  const int64_t kv_heads = side(2), group = side(3), head_dim = 2 * side(3);
  Json json = {{"architectures", {architecture}}, {"vocab_size", side(9)}};
  if (architecture == "GPT2LMHeadModel") {
    json.update({{"n_embd", 4 * kv_heads},
                 {"n_head", kv_heads},
                 {"n_layer", side(3)},
                 {"n_positions", side(9)}});
  } else {
    json.update({{"hidden_size", side(3) * kv_heads * group * 2},
                 {"intermediate_size", side(9)},
                 {"num_hidden_layers", side(3)},
                 {"num_attention_heads", kv_heads * group},
                 {"num_key_value_heads", kv_heads},
                 {"head_dim", head_dim},
                 {"max_position_embeddings", 16},
                 {"attention_bias", random.Below(2) == 0},
                 {"mlp_bias", random.Below(2) == 0},
                 {"tie_word_embeddings", random.Below(2) == 0}});
  }
  const auto config = ParseModelConfig(json.dump(), "config.json");
  EXPECT_TRUE(config.ok()) << config.status() << json;
  return *config;
}

// A folder that holds these tensors, all zeros.
Result<SafetensorsFolder> FolderOf(const TempFolder& folder,
                                   const std::vector<ExpectedTensor>& tensors) {
  static const std::string zeros(1 << 16, '\0');
  std::vector<TensorToWrite> out;
  for (const ExpectedTensor& tensor : tensors) {
    out.push_back({tensor.name, DType::kFloat32, tensor.shape,
                   AsBytes(zeros).first(*TensorBytes(DType::kFloat32, tensor.shape))});
  }
  WEFT_TRY(WriteSafetensors(folder.path() / "model.safetensors", out));
  return SafetensorsFolder::Open(folder.path());
}

TEST(LayoutPropertyTest, TensorsHaveDistinctNamesAndEveryLinearLayerItsWeight) {
  RandomStream random(51);
  for (int turn = 0; turn < 200; ++turn) {
    const ModelConfig config = RandomConfig(random);
    std::map<std::string, std::vector<int64_t>> tensors;
    for (const ExpectedTensor& tensor : ExpectedTensors(config)) {
      EXPECT_TRUE(tensors.emplace(tensor.name, tensor.shape).second) << tensor.name;
    }
    const bool transposed = config.family == ModelFamily::kGpt2;
    for (const LinearSite& site : LinearSites(config)) {
      const auto found = tensors.find(site.path + ".weight");
      ASSERT_NE(found, tensors.end()) << site.path;
      EXPECT_EQ(found->second, transposed ? (std::vector<int64_t>{site.in, site.out})
                                          : (std::vector<int64_t>{site.out, site.in}))
          << site.path;
      const auto bias = tensors.find(site.path + ".bias");
      if (bias != tensors.end()) {
        EXPECT_EQ(bias->second, std::vector<int64_t>{site.out});
      }
    }
    EXPECT_EQ(tensors.contains("lm_head.weight"), !config.tie_word_embeddings);
    EXPECT_EQ(OutputHeadSite(config).in, config.hidden_size);
    EXPECT_EQ(OutputHeadSite(config).out, config.vocab_size);
  }
}

TEST(LayoutPropertyTest, AFolderThatLacksAnyOneTensorOrHasItTurnedIsNamedByIt) {
  RandomStream random(52);
  for (int turn = 0; turn < 5; ++turn) {
    const ModelConfig config = RandomConfig(random);
    const std::vector<ExpectedTensor> whole = ExpectedTensors(config);
    const TempFolder folder;
    const auto complete = FolderOf(folder, whole);
    ASSERT_TRUE(complete.ok()) << complete.status();
    EXPECT_TRUE(CheckTensors(config, *complete, "dir").ok());
    for (size_t i = 0; i < whole.size(); ++i) {
      std::vector<ExpectedTensor> lacking = whole;
      lacking.erase(lacking.begin() + static_cast<std::ptrdiff_t>(i));
      const Status missing = CheckTensors(config, *FolderOf(folder, lacking), "dir");
      EXPECT_EQ(missing.code(), Code::kNotFound);
      EXPECT_THAT(missing.message(), HasSubstr("tensor " + whole[i].name + " is missing"));
      std::vector<ExpectedTensor> odd = whole;
      odd[i].shape.push_back(1);
      const Status misshapen = CheckTensors(config, *FolderOf(folder, odd), "dir");
      EXPECT_EQ(misshapen.code(), Code::kInvalidArgument);
      EXPECT_THAT(misshapen.message(),
                  HasSubstr(whole[i].name + ": got " + ShapeText(odd[i].shape) +
                            ", config.json asks for " + ShapeText(whole[i].shape)));
    }
    std::vector<ExpectedTensor> more = whole;
    more.push_back({"model.layers.0.self_attn.q_proj.lora_A", {2, 2}});
    EXPECT_THAT(CheckTensors(config, *FolderOf(folder, more), "dir").message(),
                HasSubstr("lora_A [2×2] is none that " + config.architecture));
  }
}

// ---- files ----

struct RandomFile {
  std::vector<std::string> bytes;  // what the tensors' spans point into
  std::vector<TensorToWrite> tensors;
  SafetensorsMetadata metadata;
};

RandomFile MakeFile(RandomStream& random) {
  RandomFile file;
  const size_t count = random.Below(12);
  file.bytes.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    TensorToWrite tensor;
    tensor.name = Str("t", i, random.Below(2) == 0 ? ".weight" : ".\"ü\\");
    tensor.dtype = static_cast<DType>(random.Below(kDTypes.size()));
    for (uint64_t n = random.Below(4); n > 0; --n)
      tensor.shape.push_back(static_cast<int64_t>(random.Below(5)));
    std::string bytes(*TensorBytes(tensor.dtype, tensor.shape), '\0');
    for (char& byte : bytes) byte = static_cast<char>(random.Below(256));
    file.bytes.push_back(std::move(bytes));
    tensor.bytes = AsBytes(file.bytes.back());
    file.tensors.push_back(std::move(tensor));
  }
  for (uint64_t n = random.Below(3); n > 0; --n) file.metadata.emplace_back(Str("k", n), "v\n\"");
  return file;
}

TEST(SafetensorsPropertyTest, RandomFilesComeBackAlignedAndTheSameInWhateverOrder) {
  RandomStream random(53);
  for (int turn = 0; turn < 300; ++turn) {
    RandomFile file = MakeFile(random);
    const Result<Blob> bytes = EncodeSafetensors(file.tensors, file.metadata);
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    const auto read = SafetensorsFile::Parse(*bytes, "f");
    ASSERT_TRUE(read.ok()) << read.status();
    ASSERT_EQ(read->tensors().size(), file.tensors.size());
    for (const TensorToWrite& wanted : file.tensors) {
      const StoredTensor* got = read->Find(wanted.name);
      ASSERT_NE(got, nullptr) << wanted.name;
      EXPECT_EQ(got->bytes.view(), AsText(wanted.bytes));
      const auto offset = static_cast<size_t>(got->bytes.data() - bytes->data());
      if (!got->bytes.empty()) {
        EXPECT_EQ(offset % DTypeBytes(got->dtype), 0u) << wanted.name;
      }
    }
    const std::vector<size_t> order = random.Permutation(file.tensors.size());
    std::vector<TensorToWrite> shuffled;
    for (const size_t i : order) shuffled.push_back(file.tensors[i]);
    EXPECT_EQ(EncodeSafetensors(shuffled, file.metadata)->view(), bytes->view());
  }
}

TEST(SafetensorsPropertyTest, AFlippedBitOfTheHeaderIsRefusedOrChangesWhatIsRead) {
  RandomStream random(54);
  for (int turn = 0; turn < 60; ++turn) {
    RandomFile file = MakeFile(random);
    if (file.tensors.empty()) continue;
    const Blob good = *EncodeSafetensors(file.tensors, file.metadata);
    const auto before = SafetensorsFile::Parse(good, "f");
    uint64_t length = 0;
    std::memcpy(&length, good.data(), 8);
    for (int flip = 0; flip < 40; ++flip) {
      std::vector<std::byte> bytes(good.span().begin(), good.span().end());
      const size_t at = random.Below(8 + length);
      bytes[at] ^= static_cast<std::byte>(1u << random.Below(8));
      const Blob bad = Blob::Adopt(std::move(bytes));
      const auto after = SafetensorsFile::Parse(bad, "f");
      if (!after.ok()) continue;
      // Names, metadata, or types of the same size may change; sizes and places may not.
      for (const StoredTensor& tensor : after->tensors()) {
        EXPECT_GE(tensor.bytes.data(), bad.data());
        EXPECT_LE(tensor.bytes.data() + tensor.bytes.size(), bad.data() + bad.size());
        EXPECT_EQ(TensorBytes(tensor.dtype, tensor.shape), tensor.bytes.size());
      }
    }
  }
}

TEST(TensorBytesTest, ProductsStopBeforeTheyOverflow) {
  EXPECT_EQ(TensorBytes(DType::kUInt8, {int64_t{1} << 31, int64_t{1} << 31}), uint64_t{1} << 62);
  EXPECT_EQ(TensorBytes(DType::kUInt8, {int64_t{1} << 32, int64_t{1} << 31}), std::nullopt);
  EXPECT_EQ(TensorBytes(DType::kFloat64, {int64_t{1} << 60}), std::nullopt);
  EXPECT_EQ(TensorBytes(DType::kFloat64, {(int64_t{1} << 60) - 1}), 8 * ((uint64_t{1} << 60) - 1));
  EXPECT_EQ(TensorBytes(DType::kUInt8, {0, int64_t{1} << 62, 4}), std::nullopt)
      << "a zero does not excuse the others";
  EXPECT_EQ(TensorBytes(DType::kUInt8, {5, -1}), std::nullopt);
}

// ---- rotations ----

RopeConfig RandomRope(RandomStream& random, RopeType type) {
  RopeConfig rope;
  rope.type = type;
  rope.theta = std::pow(10, 2 + 4 * random.Uniform());
  rope.factor = 1 + 15 * random.Uniform();
  rope.original_positions = 256 << random.Below(5);
  return rope;
}

TEST(RopePropertyTest, FrequenciesFallFromOneAndStretchingOnlyLowersThem) {
  RandomStream random(55);
  for (int turn = 0; turn < 400; ++turn) {
    const auto type = static_cast<RopeType>(random.Below(5));
    const RopeConfig rope = RandomRope(random, type);
    const int64_t head_dim = 2 * static_cast<int64_t>(1 + random.Below(64));
    const int64_t context = 4 * rope.original_positions;
    RopeConfig plain = rope;
    plain.type = RopeType::kDefault;
    const auto stretched = RopeInverseFrequencies(rope, head_dim, context, context + 1000);
    const auto normal = RopeInverseFrequencies(plain, head_dim, context, context + 1000);
    ASSERT_EQ(stretched.size(), static_cast<size_t>(head_dim / 2));
    EXPECT_EQ(normal[0], 1.0F) << "the first pair turns by one radian a position";
    for (size_t i = 0; i < stretched.size(); ++i) {
      ASSERT_GT(stretched[i], 0.0F) << RopeTypeName(type);
      // Rounding of float32 aside, no stretching turns a pair faster.
      ASSERT_LE(stretched[i], normal[i] * (1 + 1e-6F)) << RopeTypeName(type) << " " << i;
      ASSERT_GE(stretched[i] * static_cast<float>(rope.factor) * (1 + 1e-5F),
                type == RopeType::kDynamic ? 0 : normal[i])
          << RopeTypeName(type) << ": by no more than the factor";
      if (i > 0) {
        ASSERT_LE(stretched[i], stretched[i - 1] * (1 + 1e-6F)) << RopeTypeName(type);
      }
    }
  }
}

TEST(RopePropertyTest, DynamicLeavesSequencesWithinTheContextAlone) {
  RandomStream random(56);
  for (int turn = 0; turn < 100; ++turn) {
    const RopeConfig rope = RandomRope(random, RopeType::kDynamic);
    RopeConfig plain = rope;
    plain.type = RopeType::kDefault;
    for (const int64_t length : {int64_t{1}, int64_t{512}, int64_t{1024}}) {
      EXPECT_EQ(RopeInverseFrequencies(rope, 16, 1024, length),
                RopeInverseFrequencies(plain, 16, 1024, length));
    }
    EXPECT_NE(RopeInverseFrequencies(rope, 16, 1024, 1025),
              RopeInverseFrequencies(plain, 16, 1024, 1025));
  }
}

TEST(RopePropertyTest, EveryTypeHasTheNameThatConfigurationsUse) {
  const std::pair<RopeType, const char*> names[] = {{RopeType::kDefault, "default"},
                                                    {RopeType::kLinear, "linear"},
                                                    {RopeType::kDynamic, "dynamic"},
                                                    {RopeType::kLlama3, "llama3"},
                                                    {RopeType::kYarn, "yarn"}};
  for (const auto& [type, name] : names) EXPECT_EQ(RopeTypeName(type), name);
}

}  // namespace
}  // namespace weft
