// The decoders' contract on tiny models of every family: gradients against finite differences,
// packing, checkpointing, dropout, caching, bfloat16.

#include <gtest/gtest.h>

#include "common/model/kernels.h"
#include "common/model/projection.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::Random;
using testing::TinyAdapters;
using testing::TinyBatch;
using testing::TinyModel;

double Loss(const Model& model, const PackedBatch& batch, const AdapterBinding& adapters,
            const ForwardOptions& options = {}) {
  const at::NoGradGuard no_grad;
  return model.LossSum(batch, adapters, options).item<double>();
}

std::vector<at::Tensor> Leaves(const AdapterBinding& adapters) {
  std::vector<at::Tensor> leaves;
  for (const Factors& factors : adapters[0]) {
    leaves.push_back(factors.low_rank.A_RI);
    leaves.push_back(factors.low_rank.B_OR);
  }
  return leaves;
}

std::vector<at::Tensor> GradientsOf(const Model& model, const PackedBatch& batch,
                                    const AdapterBinding& adapters,
                                    const ForwardOptions& options = {}) {
  std::vector<at::Tensor> gradients;
  model.LossSum(batch, adapters, options).backward();
  for (at::Tensor leaf : Leaves(adapters)) {
    gradients.push_back(leaf.grad().clone());
    leaf.mutable_grad() = at::Tensor();
  }
  return gradients;
}

class DecoderTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DecoderTest, GradientsOfFactorsMatchFiniteDifferences) {
  const auto model = TinyModel(GetParam(), {.dtype = at::kDouble});
  const PackedBatch batch = TinyBatch({7, 1, 5});
  const AdapterBinding adapters = TinyAdapters(*model, at::kDouble);
  const auto gradients = GradientsOf(*model, batch, adapters);
  const auto leaves = Leaves(adapters);
  for (size_t i = 0; i < leaves.size(); ++i) {
    testing::ExpectGradientMatches(
        leaves[i], gradients[i], [&] { return Loss(*model, batch, adapters); },
        model->sites()[i / 2].path + (i % 2 == 0 ? " A" : " B"));
  }
}

TEST_P(DecoderTest, GradientsWithDropoutMatchFiniteDifferences) {
  const auto model = TinyModel(GetParam(), {.dtype = at::kDouble});
  const PackedBatch batch = TinyBatch({6, 4});
  const AdapterBinding adapters = TinyAdapters(*model, at::kDouble, 0.3);
  const ForwardOptions options{.training = true, .dropout_seed = 77};
  const auto gradients = GradientsOf(*model, batch, adapters, options);
  const auto leaves = Leaves(adapters);
  for (size_t i = 0; i < leaves.size(); i += 3) {
    testing::ExpectGradientMatches(
        leaves[i], gradients[i], [&] { return Loss(*model, batch, adapters, options); },
        model->sites()[i / 2].path);
  }
}

TEST_P(DecoderTest, GradientsOfATrainableModelMatchFiniteDifferences) {
  const auto model = TinyModel(GetParam(), {.dtype = at::kDouble, .trainable = true});
  const PackedBatch batch = TinyBatch({5, 6});
  model->LossSum(batch, {}, {}).backward();
  ASSERT_FALSE(model->TrainableWeights().empty());
  ASSERT_EQ(model->TrainableWeights().size(), model->AllWeights().size());
  for (const NamedTensor& weight : model->TrainableWeights()) {
    ASSERT_TRUE(weight.value.grad().defined()) << weight.name;
    testing::ExpectGradientMatches(
        weight.value, weight.value.grad(), [&] { return Loss(*model, batch, {}); }, weight.name);
  }
}

TEST_P(DecoderTest, RowsPackedTogetherAreRowsAlone) {
  const auto model = TinyModel(GetParam());
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  const PackedBatch batch = TinyBatch({9, 3, 12, 1});
  double alone = 0;
  for (size_t r = 0; r + 1 < batch.row_starts.size(); ++r) {
    const int64_t begin = batch.row_starts[r], length = batch.row_starts[r + 1] - begin;
    const at::Tensor inside =
        (batch.label_at_L >= begin).logical_and(batch.label_at_L < begin + length);
    PackedBatch row{batch.ids_N.narrow(0, begin, length),
                    batch.positions_N.narrow(0, begin, length),
                    {0, length},
                    batch.label_at_L.masked_select(inside) - begin,
                    batch.labels_L.masked_select(inside)};
    alone += Loss(*model, row, adapters);
  }
  EXPECT_NEAR(Loss(*model, batch, adapters), alone, 1e-4 * alone);
}

TEST_P(DecoderTest, PaddingAfterARowChangesNothing) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = TinyBatch({9});
  PackedBatch padded = batch;
  padded.ids_N = at::cat({batch.ids_N, at::zeros({4}, at::kLong)});
  padded.positions_N = at::arange(13, at::kLong);
  padded.row_starts = {0, 13};
  const double loss = Loss(*model, batch, {});
  EXPECT_NEAR(Loss(*model, padded, {}), loss, 1e-5 * loss);
}

TEST_P(DecoderTest, CheckpointingChangesNoBit) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = TinyBatch({9, 4});
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat, 0.2);
  ForwardOptions options{.training = true, .dropout_seed = 3};
  const auto plain = GradientsOf(*model, batch, adapters, options);
  options.gradient_checkpointing = true;
  const auto again = GradientsOf(*model, batch, adapters, options);
  for (size_t i = 0; i < plain.size(); ++i) EXPECT_TRUE(at::equal(plain[i], again[i])) << i;
}

TEST_P(DecoderTest, StepsWithACacheEqualTheWholeForwardPass) {
  const auto model = TinyModel(GetParam());
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  PackedBatch batch = TinyBatch({11});
  batch.label_at_L = at::arange(11, at::kLong);
  batch.labels_L = at::zeros({11}, at::kLong);
  const at::Tensor whole_LV = model->Logits(batch, adapters);
  const auto cache = model->NewCache();
  int64_t at = 0;
  for (int64_t count : {4, 1, 1, 3, 2}) {
    const at::Tensor last_V = model->Step(batch.ids_N.narrow(0, at, count), *cache, adapters);
    at += count;
    EXPECT_TRUE(at::allclose(last_V, whole_LV[at - 1], 1e-4, 1e-4)) << at;
  }
}

TEST_P(DecoderTest, Bfloat16IsCloseToFloat32) {
  const PackedBatch batch = TinyBatch({9, 5});
  const auto exact = TinyModel(GetParam());
  const auto rounded = TinyModel(GetParam(), {.dtype = at::kBFloat16});
  const AdapterBinding adapters = TinyAdapters(*exact, at::kFloat);
  const double loss = Loss(*exact, batch, adapters);
  EXPECT_NEAR(Loss(*rounded, batch, adapters), loss, 0.03 * loss);
  const at::Tensor a = at::cat([&] {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& g : GradientsOf(*exact, batch, adapters)) flat.push_back(g.flatten());
    return flat;
  }());
  const at::Tensor b = at::cat([&] {
    std::vector<at::Tensor> flat;
    for (const at::Tensor& g : GradientsOf(*rounded, batch, adapters)) flat.push_back(g.flatten());
    return flat;
  }());
  EXPECT_EQ(b.scalar_type(), at::kFloat);
  EXPECT_LT(((a - b).norm() / a.norm()).item<double>(), 0.1);
}

// Where the CPU has no units for bfloat16 a model fed many tokens widens its matrices once, one fed
// token by token does so for each large product: the same arithmetic.
TEST_P(DecoderTest, MatricesWidenedWhileLoadingChangeNoBit) {
  const PackedBatch batch = TinyBatch({60, 60});  // enough labels for the head as well
  const auto model = TinyModel(GetParam(), {.dtype = at::kBFloat16});
  const auto sparing = TinyModel(GetParam(), {.dtype = at::kBFloat16, .token_by_token = true});
  const bool widens = WidensProducts(at::kBFloat16, at::kCPU);
  const auto has_matrix_of = [](const Model& m, at::ScalarType type) {
    const std::vector<NamedTensor> weights = m.AllWeights();
    return std::any_of(weights.begin(), weights.end(), [&](const NamedTensor& weight) {
      return weight.value.dim() == 2 && weight.value.scalar_type() == type;
    });
  };
  EXPECT_EQ(has_matrix_of(*model, at::kFloat), widens);
  EXPECT_FALSE(has_matrix_of(*sparing, at::kFloat));
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  EXPECT_EQ(Loss(*model, batch, adapters), Loss(*sparing, batch, adapters));
  const std::vector<at::Tensor> a = GradientsOf(*model, batch, adapters);
  const std::vector<at::Tensor> b = GradientsOf(*sparing, batch, adapters);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i], b[i])) << i;
}

TEST_P(DecoderTest, FusedAndGenericKernelsGiveTheSameTraining) {
  const auto model = TinyModel(GetParam());
  const PackedBatch batch = TinyBatch({9, 5, 30});
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  const double loss = Loss(*model, batch, adapters);
  const auto fused = GradientsOf(*model, batch, adapters);
  SetKernelChoiceForTest(KernelChoice::kGeneric);
  EXPECT_NEAR(Loss(*model, batch, adapters), loss, 1e-5 * loss);
  const auto generic = GradientsOf(*model, batch, adapters);
  SetKernelChoiceForTest(KernelChoice::kBest);
  for (size_t i = 0; i < fused.size(); ++i) {
    EXPECT_LT((fused[i] - generic[i]).norm().item<double>(),
              1e-4 * generic[i].norm().item<double>() + 1e-6)
        << i;
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecoderTest,
                         ::testing::Values("llama", "llama_bias", "mistral", "qwen3", "gpt2"),
                         [](const auto& param) { return std::string(param.param); });

TEST(DecoderTest, DropoutMasksDependOnSeedAndNotOnThreads) {
  const auto model = TinyModel("llama");
  const PackedBatch batch = TinyBatch({9, 30, 25});
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat, 0.5);
  const ForwardOptions options{.training = true, .dropout_seed = 3};
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const double one = Loss(*model, batch, adapters, options);
  at::set_num_threads(2);
  const double two = Loss(*model, batch, adapters, options);
  at::set_num_threads(threads);
  EXPECT_NEAR(one, two, 1e-5 * one);
  EXPECT_GT(std::abs(one - Loss(*model, batch, adapters, {.training = true, .dropout_seed = 4})),
            1e-4);
  EXPECT_GT(std::abs(one - Loss(*model, batch, adapters)), 1e-4) << "off outside training";
}

TEST(DecoderTest, OnlyWhatAsksForAGradientGetsOne) {
  const auto model = TinyModel("llama");
  AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  for (size_t i = 0; i < 7; ++i) {  // the first layer is frozen
    adapters[0][i].low_rank.A_RI.requires_grad_(false);
    adapters[0][i].low_rank.B_OR.requires_grad_(false);
  }
  model->LossSum(TinyBatch({8}), adapters, {}).backward();
  for (size_t i = 0; i < model->sites().size(); ++i) {
    EXPECT_EQ(adapters[0][i].low_rank.A_RI.grad().defined(), i >= 7) << i;
    const at::Tensor& frozen = adapters[1][i].low_rank.A_RI;
    EXPECT_FALSE(frozen.defined() && frozen.grad().defined()) << i;
  }
}

TEST(DecoderTest, ALossWithoutGradientsCarriesNoGraph) {
  const auto model = TinyModel("llama");
  EXPECT_FALSE(model->LossSum(TinyBatch({8}), {}, {}).requires_grad());
}

TEST(DecoderTest, ABatchWithoutLabelsHasLossZeroAndZeroGradients) {
  const auto model = TinyModel("llama");
  PackedBatch batch = TinyBatch({8});
  batch.label_at_L = at::empty({0}, at::kLong);
  batch.labels_L = at::empty({0}, at::kLong);
  const AdapterBinding adapters = TinyAdapters(*model, at::kFloat);
  EXPECT_EQ(Loss(*model, batch, adapters), 0);
  for (const at::Tensor& gradient : GradientsOf(*model, batch, adapters)) {
    EXPECT_EQ(gradient.abs().max().item<double>(), 0);
  }
}

TEST(DecoderTest, ANotANumberInTheWeightsReachesTheLoss) {
  const auto model = TinyModel("llama", {.trainable = true});
  {
    const at::NoGradGuard no_grad;
    at::Tensor weight = model->TrainableWeights()[3].value;
    weight.view(-1)[0] = std::numeric_limits<double>::quiet_NaN();
  }
  EXPECT_TRUE(std::isnan(Loss(*model, TinyBatch({8}), {})));
}

TEST(DecoderTest, TrainingAllWeightsInBfloat16IsRefused) {
  const auto folder = std::filesystem::temp_directory_path() / "weft-no-such-model";
  const auto model = Model::Load(folder, {.dtype = at::kBFloat16, .trainable = true});
  ASSERT_FALSE(model.ok());
  EXPECT_NE(model.status().message().find("float32"), std::string::npos) << model.status();
}

TEST(DecoderTest, WeightsDrawnFromASeedAreReproducible) {
  const auto a = TinyModel("llama", {.init_seed = 1}), b = TinyModel("llama", {.init_seed = 1}),
             c = TinyModel("llama", {.init_seed = 2});
  for (size_t i = 0; i < a->AllWeights().size(); ++i) {
    EXPECT_TRUE(at::equal(a->AllWeights()[i].value, b->AllWeights()[i].value));
  }
  EXPECT_FALSE(at::equal(a->AllWeights()[0].value, c->AllWeights()[0].value));
}

}  // namespace
}  // namespace weft
