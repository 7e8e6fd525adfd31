// The encoders' contract on tiny models: loss and every gradient against a plain version of the
// same formulas by autograd, packing, pairs of texts, checkpointing, heads of the folder and of
// adapters.

#include "common/model/encoder.h"

#include <map>

#include <gtest/gtest.h>

#include "common/formats/model_layout.h"
#include "common/formats/safetensors_writer.h"
#include "common/model/generate.h"
#include "common/model/kernels.h"
#include "common/tensor/dtype_map.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::Random;
using testing::TinyModel;

// Rows of the given lengths with a class each.
PackedBatch Rows(const std::vector<int64_t>& lengths, bool pairs = false) {
  RandomStream stream(17);
  std::vector<int64_t> ids, positions, types, label_at, labels;
  PackedBatch batch;
  batch.row_starts = {0};
  for (int64_t length : lengths) {
    label_at.push_back(static_cast<int64_t>(ids.size()));
    labels.push_back(static_cast<int64_t>(stream.Below(5)));
    for (int64_t t = 0; t < length; ++t) {
      ids.push_back(static_cast<int64_t>(stream.Below(31)));
      positions.push_back(t);
      types.push_back(t >= length / 2 ? 1 : 0);
    }
    batch.row_starts.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.ids_N = at::tensor(ids, at::kLong);
  batch.positions_N = at::tensor(positions, at::kLong);
  if (pairs) batch.types_N = at::tensor(types, at::kLong);
  batch.label_at_L = at::tensor(label_at, at::kLong);
  batch.labels_L = at::tensor(labels, at::kLong);
  return batch;
}

// The same model one row at a time, in the words of the papers (Vaswani et al. 2017, Devlin et al.
// 2019), every product left to autograd.
class Reference {
 public:
  explicit Reference(const Model& model) : model_(model), config_(model.config()) {
    const bool trains = !model.TrainableWeights().empty();
    for (const NamedTensor& weight : trains ? model.TrainableWeights() : model.AllWeights()) {
      weights_[weight.name] = weight.value;
    }
    for (size_t i = 0; i < model.sites().size(); ++i) index_[model.sites()[i].path] = i;
  }

  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters) const {
    at::Tensor sum = at::zeros({}, at::kDouble);
    for (size_t r = 0; r + 1 < batch.row_starts.size(); ++r) {
      const int64_t begin = batch.row_starts[r], length = batch.row_starts[r + 1] - begin;
      const at::Tensor types_T = batch.types_N.defined() ? batch.types_N.narrow(0, begin, length)
                                                         : at::zeros({length}, at::kLong);
      const at::Tensor h_TE = Hidden(batch.ids_N.narrow(0, begin, length), types_T, adapters);
      const at::Tensor logits_V = Head(h_TE.select(0, 0).unsqueeze(0), adapters).squeeze(0);
      sum = sum -
            at::log_softmax(logits_V, 0)[batch.labels_L[static_cast<int64_t>(r)].item<int64_t>()];
    }
    return sum;
  }

 private:
  std::string Body() const { return config_.family == ModelFamily::kBert ? "bert." : "roberta."; }

  at::Tensor Weight(const std::string& name, const AdapterBinding& adapters) const {
    for (const AppliedAdapter& adapter : adapters) {
      for (const NamedTensor& tensor : adapter.dense) {
        if (tensor.name == name) return tensor.value;
      }
    }
    return weights_.at(name);
  }

  at::Tensor Linear(const at::Tensor& x_TI, const std::string& path,
                    const AdapterBinding& adapters) const {
    at::Tensor y_TO =
        at::matmul(x_TI, Weight(path + ".weight", adapters).t()) + Weight(path + ".bias", adapters);
    const auto site = index_.find(path);
    if (site == index_.end()) return y_TO;
    for (const AppliedAdapter& adapter : adapters) {
      const LowRank& factors = adapter[site->second].low_rank;
      if (!factors.A_RI.defined()) continue;
      y_TO = y_TO + at::matmul(at::matmul(x_TI, factors.A_RI.t()), factors.B_OR.t());
    }
    return y_TO;
  }

  at::Tensor Norm(const at::Tensor& x_TE, const std::string& path) const {
    return at::layer_norm(x_TE, {config_.hidden_size}, weights_.at(path + ".weight"),
                          weights_.at(path + ".bias"), config_.norm_eps);
  }

  at::Tensor Hidden(const at::Tensor& ids_T, const at::Tensor& types_T,
                    const AdapterBinding& adapters) const {
    const std::string embeddings = Body() + "embeddings.";
    const at::Tensor positions_T = at::arange(ids_T.size(0), at::kLong) + config_.position_offset;
    at::Tensor h_TE = Norm(
        weights_.at(embeddings + "word_embeddings.weight").index_select(0, ids_T) +
            weights_.at(embeddings + "position_embeddings.weight").index_select(0, positions_T) +
            weights_.at(embeddings + "token_type_embeddings.weight").index_select(0, types_T),
        embeddings + "LayerNorm");
    for (int64_t i = 0; i < config_.num_layers; ++i) {
      const std::string path = Body() + "encoder.layer." + std::to_string(i) + ".";
      const auto heads = [&](const char* module) {
        return Linear(h_TE, path + "attention.self." + module, adapters)
            .view({-1, config_.num_heads, config_.head_dim})
            .transpose(0, 1);
      };
      const at::Tensor scores_HTT = at::matmul(heads("query"), heads("key").transpose(1, 2)) /
                                    std::sqrt(static_cast<double>(config_.head_dim));
      const at::Tensor o_TE = at::matmul(at::softmax(scores_HTT, -1), heads("value"))
                                  .transpose(0, 1)
                                  .reshape({-1, config_.hidden_size});
      const at::Tensor m_TE = Norm(Linear(o_TE, path + "attention.output.dense", adapters) + h_TE,
                                   path + "attention.output.LayerNorm");
      const at::Tensor s_TF = at::gelu(Linear(m_TE, path + "intermediate.dense", adapters));
      h_TE = Norm(Linear(s_TF, path + "output.dense", adapters) + m_TE, path + "output.LayerNorm");
    }
    return h_TE;
  }

  at::Tensor Head(const at::Tensor& h_1E, const AdapterBinding& adapters) const {
    if (config_.family == ModelFamily::kBert) {
      return Linear(at::tanh(Linear(h_1E, "bert.pooler.dense", adapters)), "classifier", adapters);
    }
    return Linear(at::tanh(Linear(h_1E, "classifier.dense", adapters)), "classifier.out_proj",
                  adapters);
  }

  const Model& model_;
  const ModelConfig& config_;
  std::map<std::string, at::Tensor> weights_;
  std::map<std::string, size_t> index_;
};

// Two adapters, the first trained, with a head for five classes.
AdapterBinding AdaptersWithHead(const Model& model, at::ScalarType dtype) {
  AdapterBinding adapters = testing::TinyAdapters(model, dtype);
  for (const ExpectedTensor& tensor : HeadTensors(model.config(), 5)) {
    adapters[0].dense.push_back(
        {tensor.name,
         Random(tensor.shape, 900 + adapters[0].dense.size(), 0.4, dtype).requires_grad_(true)});
  }
  return adapters;
}

std::vector<at::Tensor> Leaves(const Model& model, const AdapterBinding& adapters) {
  std::vector<at::Tensor> leaves;
  for (const NamedTensor& weight : model.TrainableWeights()) leaves.push_back(weight.value);
  for (const AppliedAdapter& adapter : adapters) {
    for (const Factors& factors : adapter) {
      for (const at::Tensor& tensor : {factors.low_rank.A_RI, factors.low_rank.B_OR}) {
        if (tensor.defined() && tensor.requires_grad()) leaves.push_back(tensor);
      }
    }
    for (const NamedTensor& tensor : adapter.dense) leaves.push_back(tensor.value);
  }
  return leaves;
}

std::vector<at::Tensor> GradientsOf(const at::Tensor& loss, const std::vector<at::Tensor>& leaves) {
  loss.backward();
  std::vector<at::Tensor> gradients;
  for (at::Tensor leaf : leaves) {
    gradients.push_back(leaf.grad().defined() ? leaf.grad().clone() : at::zeros_like(leaf));
    leaf.mutable_grad() = at::Tensor();
  }
  return gradients;
}

void ExpectEqualGradients(const std::vector<at::Tensor>& got, const std::vector<at::Tensor>& wanted,
                          double tolerance) {
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_LT((got[i] - wanted[i]).abs().max().item<double>(),
              tolerance * (1 + wanted[i].abs().max().item<double>()))
        << "leaf " << i;
  }
}

class EncoderTest : public ::testing::TestWithParam<const char*> {};

TEST_P(EncoderTest, LossAndGradientsAreTheReferences) {
  const auto model = TinyModel(GetParam(), {.dtype = at::kDouble});
  testing::Scramble(*model, 3);
  const Reference reference(*model);
  for (const bool pairs : {false, true}) {
    const PackedBatch batch = Rows({7, 1, 12}, pairs);
    const AdapterBinding adapters = AdaptersWithHead(*model, at::kDouble);
    const auto leaves = Leaves(*model, adapters);
    const at::Tensor loss = model->LossSum(batch, adapters, {});
    const at::Tensor wanted = reference.LossSum(batch, adapters);
    EXPECT_NEAR(loss.item<double>(), wanted.item<double>(), 1e-9);
    ExpectEqualGradients(GradientsOf(loss, leaves), GradientsOf(wanted, leaves), 1e-9);
  }
}

TEST_P(EncoderTest, GradientsOfAllWeightsAreTheReferences) {
  const auto model = TinyModel(GetParam(), {.dtype = at::kDouble, .trainable = true});
  testing::Scramble(*model, 4);
  const PackedBatch batch = Rows({5, 9}, true);
  const auto leaves = Leaves(*model, {});
  EXPECT_EQ(leaves.size(),
            ExpectedTensors(model->config()).size() + HeadTensors(model->config(), 5).size());
  const at::Tensor loss = model->LossSum(batch, {}, {});
  const at::Tensor wanted = Reference(*model).LossSum(batch, {});
  EXPECT_NEAR(loss.item<double>(), wanted.item<double>(), 1e-9);
  ExpectEqualGradients(GradientsOf(loss, leaves), GradientsOf(wanted, leaves), 1e-9);
}

TEST_P(EncoderTest, CheckpointingChangesNoGradient) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = Rows({7, 3, 12});
  const AdapterBinding adapters = AdaptersWithHead(*model, at::kFloat);
  const auto leaves = Leaves(*model, adapters);
  const auto kept = GradientsOf(model->LossSum(batch, adapters, {}), leaves);
  const auto again =
      GradientsOf(model->LossSum(batch, adapters, {.gradient_checkpointing = true}), leaves);
  for (size_t i = 0; i < kept.size(); ++i) EXPECT_TRUE(at::equal(kept[i], again[i])) << i;
}

TEST_P(EncoderTest, ARowsLogitsDoNotDependOnItsNeighbours) {
  const auto model = TinyModel(GetParam());
  const PackedBatch all = Rows({7, 3, 40, 1});
  const at::Tensor together_LV = model->Logits(all, {});
  EXPECT_EQ(together_LV.sizes(), (std::vector<int64_t>{4, 5}));
  for (size_t r = 0; r + 1 < all.row_starts.size(); ++r) {
    const int64_t begin = all.row_starts[r], length = all.row_starts[r + 1] - begin;
    PackedBatch one;
    one.ids_N = all.ids_N.narrow(0, begin, length);
    one.positions_N = all.positions_N.narrow(0, begin, length);
    one.row_starts = {0, length};
    one.label_at_L = at::zeros({1}, at::kLong);
    one.labels_L = all.labels_L.narrow(0, static_cast<int64_t>(r), 1);
    EXPECT_LT((model->Logits(one, {})[0] - together_LV[static_cast<int64_t>(r)])
                  .abs()
                  .max()
                  .item<double>(),
              1e-5);
  }
}

TEST_P(EncoderTest, EveryTokenReachesTheFirst) {
  const auto model = TinyModel(GetParam());
  PackedBatch batch = Rows({6});
  const at::Tensor before = model->Logits(batch, {});
  batch.ids_N = batch.ids_N.clone();
  batch.ids_N[5] = (batch.ids_N[5] + 1) % 31;
  EXPECT_GT((model->Logits(batch, {}) - before).abs().max().item<double>(), 1e-6);
}

TEST_P(EncoderTest, FusedKernelsComputeWhatGenericOnesDo) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = Rows({7, 3, 40});
  const AdapterBinding adapters = AdaptersWithHead(*model, at::kFloat);
  const auto leaves = Leaves(*model, adapters);
  const auto fused = GradientsOf(model->LossSum(batch, adapters, {}), leaves);
  SetKernelChoiceForTest(KernelChoice::kGeneric);
  const auto generic = GradientsOf(model->LossSum(batch, adapters, {}), leaves);
  SetKernelChoiceForTest(KernelChoice::kBest);
  ExpectEqualGradients(fused, generic, 1e-4);
}

TEST_P(EncoderTest, Bfloat16IsCloseToFloat32) {
  const auto exact = TinyModel(GetParam());
  const auto rounded = TinyModel(GetParam(), {.dtype = at::kBFloat16});
  const PackedBatch batch = Rows({7, 3, 12});
  const AdapterBinding adapters = AdaptersWithHead(*exact, at::kFloat);
  const double loss = exact->LossSum(batch, adapters, {}).item<double>();
  EXPECT_NEAR(rounded->LossSum(batch, adapters, {}).item<double>(), loss, 0.05 * loss);
}

TEST_P(EncoderTest, DropoutActsOnlyInTrainingAndByItsSeed) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = Rows({7, 3});
  const AdapterBinding adapters = testing::TinyAdapters(*model, at::kFloat, 0.5);
  const auto loss = [&](const ForwardOptions& options) {
    return model->LossSum(batch, adapters, options).item<double>();
  };
  const double calm = loss({});
  const double one = loss({.training = true, .dropout_seed = 1});
  EXPECT_NE(one, calm);
  EXPECT_EQ(one, loss({.training = true, .dropout_seed = 1}));
  EXPECT_NE(one, loss({.training = true, .dropout_seed = 2}));
  EXPECT_EQ(calm, loss({.training = false, .dropout_seed = 1}));
}

TEST_P(EncoderTest, OnlyTheHeadMayTrain) {
  const auto model = TinyModel(GetParam());
  AdapterBinding adapters(1, std::vector<Factors>(model->sites().size()));
  adapters[0].dense = AdaptersWithHead(*model, at::kFloat)[0].dense;
  const auto gradients =
      GradientsOf(model->LossSum(Rows({7, 3}), adapters, {}), Leaves(*model, adapters));
  for (const at::Tensor& gradient : gradients) {
    EXPECT_GT(gradient.abs().max().item<double>(), 0);
  }
}

// A folder with the weights of `model`, without its head.
void WriteHeadless(const Model& model, const std::string& config,
                   const testing::TempFolder& folder) {
  folder.Write("config.json", config);
  std::vector<TensorToWrite> tensors;
  const std::vector<NamedTensor> weights = model.AllWeights();
  for (const NamedTensor& weight : weights) {
    if (weight.name.starts_with("classifier")) continue;
    tensors.push_back(
        {weight.name, DType::kFloat32, weight.value.sizes().vec(), BytesOf(weight.value)});
  }
  ASSERT_TRUE(WriteSafetensors(folder.path() / "model.safetensors", tensors).ok());
}

TEST_P(EncoderTest, AFolderWithoutAHeadNeedsOneFromElsewhere) {
  const auto whole = TinyModel(GetParam());
  EXPECT_TRUE(whole->has_head());
  const testing::TempFolder folder;
  WriteHeadless(*whole, testing::ConfigOf(GetParam()), folder);
  const auto bare = Model::Load(folder.path(), {});
  ASSERT_TRUE(bare.ok()) << bare.status();
  EXPECT_FALSE((*bare)->has_head());
  EXPECT_EQ((*bare)->AllWeights().size(), ExpectedTensors(whole->config()).size());
  AdapterBinding head(1, std::vector<Factors>(whole->sites().size()));
  head[0].dense = AdaptersWithHead(*whole, at::kFloat)[0].dense;
  const PackedBatch batch = Rows({7, 3});
  EXPECT_TRUE(at::equal((*bare)->Logits(batch, head), whole->Logits(batch, head)))
      << "an adapter's head replaces the folder's";
  EXPECT_FALSE(at::equal(whole->Logits(batch, head), whole->Logits(batch, {})));
  const auto drawn = Model::Load(folder.path(), {.head_seed = 7});
  ASSERT_TRUE(drawn.ok()) << drawn.status();
  EXPECT_TRUE((*drawn)->has_head());
  const auto other = Model::Load(folder.path(), {.head_seed = 8});
  EXPECT_FALSE(at::equal((*drawn)->Logits(batch, {}), (*other)->Logits(batch, {})));
}

TEST_P(EncoderTest, NothingIsGeneratedByIt) {
  const auto model = TinyModel(GetParam());
  const auto made = Generate(*model, {}, {1, 2}, {});
  EXPECT_EQ(made.status().code(), Code::kInvalidArgument);
  EXPECT_NE(made.status().message().find("classifies"), std::string::npos) << made.status();
}

INSTANTIATE_TEST_SUITE_P(Families, EncoderTest, ::testing::Values("bert", "roberta"));

}  // namespace
}  // namespace weft
