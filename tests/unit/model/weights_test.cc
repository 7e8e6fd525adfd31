// Weights as files have them: whatever their order, alignment, element type and sharding, the model
// computes the same; and nothing that is done to a model reaches its file.

#include "common/model/weights.h"

#include <algorithm>
#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/tensor/dtype_map.h"
#include "tests/support/temp_folder.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::ConfigOf;
using testing::Scramble;
using testing::TempFolder;
using testing::TinyBatch;
using testing::TinyModel;
using testing::TinyModelFrom;

/// A safetensors file whose tensors lie in the order given, its header `blanks` bytes longer.
std::string FileOf(const std::vector<NamedTensor>& weights, size_t blanks = 0) {
  nlohmann::json header;
  std::string data;
  for (const NamedTensor& weight : weights) {
    const at::Tensor value = weight.value.detach().contiguous();
    const ByteSpan bytes = BytesOf(value);
    header[weight.name] = {{"dtype", DTypeName(*FromTorch(value.scalar_type()))},
                           {"shape", value.sizes().vec()},
                           {"data_offsets", {data.size(), data.size() + bytes.size()}}};
    data += AsText(bytes);
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8 + blanks, ' ');
  std::string length;
  for (unsigned i = 0; i < 8; ++i) length += static_cast<char>((text.size() >> (8 * i)) & 0xFF);
  return length + text + data;
}

std::vector<NamedTensor> WeightsOf(const Model& model, at::ScalarType dtype = at::kFloat) {
  std::vector<NamedTensor> weights;
  for (const NamedTensor& weight : model.AllWeights()) {
    weights.push_back({weight.name, weight.value.detach().to(dtype)});
  }
  return weights;
}

double Loss(const Model& model) {
  const at::NoGradGuard no_grad;
  return model.LossSum(TinyBatch({9, 4, 17}), {}, {}).item<double>();
}

class WeightsTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    original_ = TinyModel(GetParam());
    Scramble(*original_, 21);
    folder_.Write("config.json", ConfigOf(GetParam()));
  }

  std::shared_ptr<Model> Reload(LoadOptions options = {}) const {
    auto model = Model::Load(folder_.path(), options);
    EXPECT_TRUE(model.ok()) << model.status();
    return model.ok() ? *model : nullptr;
  }
  std::shared_ptr<Model> Reloaded(const std::string& file, LoadOptions options = {}) const {
    folder_.Write("model.safetensors", file);
    return Reload(options);
  }

  TempFolder folder_;
  std::shared_ptr<Model> original_;
};

TEST_P(WeightsTest, TheOrderOfTensorsInTheFileChangesNoBit) {
  std::vector<NamedTensor> weights = WeightsOf(*original_);
  const double loss = Loss(*original_);
  EXPECT_EQ(Loss(*Reloaded(FileOf(weights))), loss) << "in order of use: q, k, v side by side";
  std::reverse(weights.begin(), weights.end());
  EXPECT_EQ(Loss(*Reloaded(FileOf(weights))), loss) << "backwards: v, k, q";
  std::sort(weights.begin(), weights.end(),
            [](const NamedTensor& a, const NamedTensor& b) { return a.name < b.name; });
  EXPECT_EQ(Loss(*Reloaded(FileOf(weights))), loss) << "by name, as Hugging Face writes";
}

TEST_P(WeightsTest, TensorsThatAreNotAlignedAreReadAllTheSame) {
  for (const size_t blanks : {1, 2, 3}) {
    const std::string file = FileOf(WeightsOf(*original_), blanks);
    EXPECT_EQ(Loss(*Reloaded(file)), Loss(*original_)) << blanks;
  }
}

TEST_P(WeightsTest, HalfPrecisionFilesComputeInFloat32) {
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const std::vector<NamedTensor> rounded = WeightsOf(*original_, dtype);
    const auto model = Reloaded(FileOf(rounded));
    EXPECT_EQ(model->dtype(), at::kFloat);
    // What float32 computes from the rounded numbers.
    std::vector<NamedTensor> widened;
    for (const NamedTensor& weight : rounded) {
      widened.push_back({weight.name, weight.value.to(at::kFloat)});
    }
    EXPECT_EQ(Loss(*model), Loss(*Reloaded(FileOf(widened))));
    EXPECT_NEAR(Loss(*model), Loss(*original_), 0.05 * Loss(*original_));
  }
}

TEST_P(WeightsTest, AllWeightsAreThoseOfTheFile) {
  const std::vector<NamedTensor> weights = WeightsOf(*original_);
  const auto model = Reloaded(FileOf(weights, 1));
  const std::vector<NamedTensor> found = model->AllWeights();
  ASSERT_EQ(found.size(), weights.size());
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_EQ(found[i].name, weights[i].name);
    EXPECT_TRUE(at::equal(found[i].value, weights[i].value)) << found[i].name;
  }
}

TEST_P(WeightsTest, ShardsAreOneModel) {
  const std::vector<NamedTensor> weights = WeightsOf(*original_);
  std::vector<NamedTensor> parts[2];
  nlohmann::json index;
  for (size_t i = 0; i < weights.size(); ++i) {
    // Every other tensor, so that q, k and v lie in different files.
    parts[i % 2].push_back(weights[i]);
    index["weight_map"][weights[i].name] = i % 2 == 0 ? "a.safetensors" : "b.safetensors";
  }
  folder_.Write("a.safetensors", FileOf(parts[0]));
  folder_.Write("b.safetensors", FileOf(parts[1]));
  folder_.Write("model.safetensors.index.json", index.dump());
  EXPECT_EQ(Loss(*Reload()), Loss(*original_));
}

TEST_P(WeightsTest, TrainingAllWeightsLeavesTheFileAsItIs) {
  const std::string file = FileOf(WeightsOf(*original_));
  const auto model = Reloaded(file, {.trainable = true});
  const double before = Loss(*model);
  {
    const at::NoGradGuard no_grad;
    for (const NamedTensor& weight : model->TrainableWeights()) {
      at::Tensor(weight.value).mul_(0.5);
    }
  }
  EXPECT_NE(Loss(*model), before) << "what the optimiser writes is what the products read";
  EXPECT_EQ(folder_.Read("model.safetensors"), file);
  EXPECT_EQ(Loss(*Reload()), before);
}

TEST_P(WeightsTest, AWeightsFileWinsOverASeed) {
  EXPECT_EQ(Loss(*Reloaded(FileOf(WeightsOf(*original_)), {.init_seed = 99})), Loss(*original_));
}

TEST_P(WeightsTest, AMissingATooWideAndAForeignTensorAreNamed) {
  const std::vector<NamedTensor> weights = WeightsOf(*original_);
  const auto error = [&](const std::vector<NamedTensor>& changed) {
    folder_.Write("model.safetensors", FileOf(changed));
    const auto model = Model::Load(folder_.path(), {});
    EXPECT_FALSE(model.ok());
    return model.ok() ? std::string() : model.status().message();
  };
  for (size_t i = 0; i < weights.size(); i += 3) {
    std::vector<NamedTensor> without = weights;
    without.erase(without.begin() + static_cast<std::ptrdiff_t>(i));
    EXPECT_NE(error(without).find(weights[i].name), std::string::npos);
    std::vector<NamedTensor> wide = weights;
    wide[i].value = at::cat({wide[i].value, wide[i].value}, 0);
    EXPECT_NE(error(wide).find(weights[i].name), std::string::npos);
  }
  std::vector<NamedTensor> more = weights;
  more.push_back({"model.layers.0.self_attn.sinks", at::zeros({4})});
  EXPECT_NE(error(more).find("sinks"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(All, WeightsTest,
                         ::testing::Values("llama", "llama_bias", "mistral", "qwen3", "gpt2"),
                         [](const auto& param) { return std::string(param.param); });

TEST(WeightsTest, LargeMatricesThatLieApartStaySeparateProducts) {
  // q, k, v together hold more than 2^20 elements, so they are not copied side by side: adapters,
  // biases and gradients must find their parts all the same.
  const std::string config = R"({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2",
    "vocab_size": 31, "hidden_size": 640, "intermediate_size": 832, "num_hidden_layers": 1,
    "num_attention_heads": 10, "num_key_value_heads": 10, "max_position_embeddings": 64,
    "initializer_range": 0.05})";
  const auto side_by_side = TinyModelFrom(config);
  Scramble(*side_by_side, 4, 0.05);
  std::vector<NamedTensor> weights = WeightsOf(*side_by_side);
  std::reverse(weights.begin(), weights.end());
  const TempFolder folder;
  folder.Write("config.json", config);
  folder.Write("model.safetensors", FileOf(weights));
  const auto apart = Model::Load(folder.path(), {});
  ASSERT_TRUE(apart.ok()) << apart.status();
  const PackedBatch batch = TinyBatch({12, 5});
  const AdapterBinding adapters = testing::TinyAdapters(*side_by_side, at::kFloat);
  const auto gradients = [&](const Model& model) {
    std::vector<at::Tensor> found;
    model.LossSum(batch, adapters, {}).backward();
    for (const Factors& factors : adapters[0]) {
      for (at::Tensor leaf : {factors.low_rank.A_RI, factors.low_rank.B_OR}) {
        found.push_back(leaf.grad().clone());
        leaf.mutable_grad() = at::Tensor();
      }
    }
    return found;
  };
  // The products are cut differently, so sums round differently.
  EXPECT_NEAR(Loss(**apart), Loss(*side_by_side), 1e-5 * Loss(*side_by_side));
  const std::vector<at::Tensor> a = gradients(**apart), b = gradients(*side_by_side);
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_LT(((a[i] - b[i]).norm() / b[i].norm()).item<double>(), 1e-4)
        << side_by_side->sites()[i / 2].path;
  }
}

TEST(WeightsTest, ATiedModelsCopyOfItsHeadIsPassedOver) {
  const auto model = TinyModel("llama");
  Scramble(*model, 2);
  std::vector<NamedTensor> weights = WeightsOf(*model);
  weights.push_back({"lm_head.weight", at::full({31, 16}, 7.0)});
  const TempFolder folder;
  folder.Write("config.json", ConfigOf("llama"));
  folder.Write("model.safetensors", FileOf(weights));
  const auto loaded = Model::Load(folder.path(), {});
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ(Loss(**loaded), Loss(*model));
  EXPECT_EQ((*loaded)->AllWeights().size(), weights.size() - 1);
}

TEST(WeightsTest, AFolderWithoutWeightsSaysSo) {
  const TempFolder folder;
  folder.Write("config.json", ConfigOf("llama"));
  const auto model = Model::Load(folder.path(), {});
  ASSERT_FALSE(model.ok());
  EXPECT_EQ(model.status().code(), Code::kNotFound);
  EXPECT_NE(model.status().message().find(folder.path().string()), std::string::npos);
  // An index whose shards are missing is damage, not an invitation to draw random weights.
  folder.Write("model.safetensors.index.json",
               R"({"weight_map": {"model.norm.weight": "gone.safetensors"}})");
  EXPECT_FALSE(Model::Load(folder.path(), {.init_seed = 1}).ok());
}

}  // namespace
}  // namespace weft
