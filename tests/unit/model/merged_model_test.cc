// An adapter folded into its model's weights computes what model and adapter did, for every family
// and both ways in which linear layers are stored.

#include <gtest/gtest.h>

#include "common/adapters/merge.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::Random;
using testing::Scramble;
using testing::TinyBatch;
using testing::TinyModel;

// Factors on every site of the model, ranks 1 to 4 in turn.
LowRankAdapter AdapterOn(const Model& model) {
  LowRankAdapter adapter;
  for (size_t i = 0; i < model.sites().size(); ++i) {
    const LinearSite& site = model.sites()[i];
    const int64_t rank = 1 + static_cast<int64_t>(i % 4);
    adapter.push_back({site,
                       {Random({rank, site.in}, 2 * i, 0.2, at::kFloat),
                        Random({site.out, rank}, 2 * i + 1, 0.2, at::kFloat)}});
  }
  return adapter;
}

AdapterBinding Bound(const Model& model, const LowRankAdapter& adapter) {
  AdapterBinding binding(1, std::vector<Factors>(model.sites().size()));
  for (size_t i = 0; i < adapter.size(); ++i) binding[0][i].low_rank = adapter[i].factors;
  return binding;
}

double Loss(const Model& model, const AdapterBinding& binding) {
  const at::NoGradGuard no_grad;
  return model.LossSum(TinyBatch({13, 6}), binding, {}).item<double>();
}

class MergedModelTest : public ::testing::TestWithParam<const char*> {};

TEST_P(MergedModelTest, ItComputesWhatModelAndAdapterDid) {
  const auto model = TinyModel(GetParam());
  Scramble(*model, 8);
  const LowRankAdapter adapter = AdapterOn(*model);
  const double plain = Loss(*model, {});
  const double adapted = Loss(*model, Bound(*model, adapter));
  ASSERT_GT(std::abs(adapted - plain), 0.01 * plain) << "the adapter must matter";
  const bool gpt2 = model->config().family == ModelFamily::kGpt2;
  const auto merged = MergeIntoWeights(model->AllWeights(), adapter, {.stored_transposed = gpt2});
  ASSERT_TRUE(merged.ok()) << merged.status();
  {
    const at::NoGradGuard no_grad;
    const std::vector<NamedTensor> own = model->AllWeights();
    for (size_t i = 0; i < own.size(); ++i) {
      ASSERT_EQ((*merged)[i].name, own[i].name);
      ASSERT_EQ((*merged)[i].value.sizes(), own[i].value.sizes());
      at::Tensor(own[i].value).copy_((*merged)[i].value);
    }
  }
  EXPECT_NEAR(Loss(*model, {}), adapted, 2e-5 * adapted);
}

TEST_P(MergedModelTest, MergingTheOppositeAdapterGivesTheBaseBack) {
  const auto model = TinyModel(GetParam());
  Scramble(*model, 8);
  const bool gpt2 = model->config().family == ModelFamily::kGpt2;
  LowRankAdapter adapter = AdapterOn(*model);
  const auto there = MergeIntoWeights(model->AllWeights(), adapter, {.stored_transposed = gpt2});
  ASSERT_TRUE(there.ok()) << there.status();
  for (LowRankSite& site : adapter) site.factors.B_OR = -site.factors.B_OR;
  const auto back = MergeIntoWeights(*there, adapter, {.stored_transposed = gpt2});
  ASSERT_TRUE(back.ok()) << back.status();
  const std::vector<NamedTensor> own = model->AllWeights();
  for (size_t i = 0; i < own.size(); ++i) {
    // Two roundings of float32 numbers of size one.
    EXPECT_TRUE(at::allclose((*back)[i].value, own[i].value, 0, 1e-6)) << own[i].name;
  }
}

INSTANTIATE_TEST_SUITE_P(All, MergedModelTest,
                         ::testing::Values("llama", "llama_bias", "mistral", "qwen3", "gpt2"),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace weft
