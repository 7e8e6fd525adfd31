// Dropout masks: what makes them reproducible, and that they are dropout.

#include "common/model/projection.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::TinyBatch;
using testing::TinyModel;

at::Tensor Mask(uint64_t seed, uint64_t stream, double p, at::IntArrayRef shape) {
  return DropoutMask(seed, stream, p, shape, at::TensorOptions().dtype(at::kFloat));
}

TEST(DropoutMaskTest, ElementsAreZeroOrScaledUpAndAsManyAsAskedFor) {
  for (const double p : {0.05, 0.3, 0.9}) {
    const at::Tensor mask = Mask(1, 2, p, {200, 250});
    const double dropped = (mask == 0).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(dropped, p, 5 * std::sqrt(p * (1 - p) / 50000)) << p;
    const at::Tensor kept = mask.masked_select(mask != 0);
    EXPECT_TRUE((kept == static_cast<float>(1 / (1 - p))).all().item<bool>()) << p;
    // So that the branch's mean stays what it is.
    EXPECT_NEAR(mask.mean().item<double>(), 1, 5 * std::sqrt(p / (1 - p) / 50000)) << p;
  }
}

TEST(DropoutMaskTest, AMaskDependsOnSeedStreamAndPlaceAlone) {
  const at::Tensor mask = Mask(7, 9, 0.5, {33, 5});
  EXPECT_TRUE(at::equal(mask, Mask(7, 9, 0.5, {33, 5})));
  EXPECT_FALSE(at::equal(mask, Mask(8, 9, 0.5, {33, 5})));
  EXPECT_FALSE(at::equal(mask, Mask(7, 10, 0.5, {33, 5})));
  // The upper halves of seed and stream count too.
  EXPECT_FALSE(at::equal(mask, Mask(7 + (uint64_t{1} << 40), 9, 0.5, {33, 5})));
  EXPECT_FALSE(at::equal(mask, Mask(7, 9 + (uint64_t{1} << 32), 0.5, {33, 5})));
  // More rows leave the first ones as they are, whatever the number of threads.
  const int threads = at::get_num_threads();
  at::set_num_threads(3);
  const at::Tensor longer = Mask(7, 9, 0.5, {20000, 5});
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(longer.narrow(0, 0, 33), mask));
}

TEST(DropoutMaskTest, NeighbouringStreamsAreIndependent) {
  const at::Tensor a = (Mask(1, 1, 0.5, {40000}) != 0).to(at::kDouble);
  const at::Tensor b = (Mask(1, 2, 0.5, {40000}) != 0).to(at::kDouble);
  // The share of places kept by both: 1/4 with a deviation of 0.0022.
  EXPECT_NEAR((a * b).mean().item<double>(), 0.25, 0.011);
}

// LoRA's dropout acts on the adapter branch alone, each adapter and layer with a mask of its own.
TEST(DropoutTest, AnAdapterWithoutDropoutBesideOneWithIsComputedWhole) {
  const auto model = TinyModel("llama");
  const PackedBatch batch = TinyBatch({12});
  const auto loss = [&](const AdapterBinding& adapters, bool training) {
    const at::NoGradGuard no_grad;
    return model->LossSum(batch, adapters, {.training = training, .dropout_seed = 5})
        .item<double>();
  };
  AdapterBinding adapters = testing::TinyAdapters(*model, at::kFloat, 0.5);
  const double whole = loss(adapters, false);
  EXPECT_NE(loss(adapters, true), whole);
  // The adapter that drops has B = 0: its branch is nothing, dropped or not.
  for (Factors& factors : adapters[0]) {
    factors.low_rank.B_OR = at::zeros_like(factors.low_rank.B_OR.detach());
  }
  EXPECT_NEAR(loss(adapters, true), loss(adapters, false), 1e-5 * whole);
}

TEST(DropoutTest, OverManySeedsTheMeanUpdateIsTheOneWithoutDropout) {
  // E[dropout(x)] = x, so the mean gradient of B is nearly the plain one for small factors (their
  // product is then linear in the mask).
  const auto model = TinyModel("llama", {.dtype = at::kDouble});
  const PackedBatch batch = TinyBatch({10, 7});
  AdapterBinding adapters = testing::TinyAdapters(*model, at::kDouble, 0.3);
  for (Factors& factors : adapters[0]) {
    factors.low_rank.B_OR = (factors.low_rank.B_OR.detach() * 1e-3).requires_grad_(true);
  }
  at::Tensor leaf = adapters[0][3].low_rank.B_OR;
  const auto gradient = [&](bool training, uint64_t seed) {
    model->LossSum(batch, adapters, {.training = training, .dropout_seed = seed}).backward();
    const at::Tensor found = leaf.grad().clone();
    leaf.mutable_grad() = at::Tensor();
    return found;
  };
  const at::Tensor plain = gradient(false, 0);
  at::Tensor mean = at::zeros_like(plain);
  constexpr int kSeeds = 200;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) mean += gradient(true, seed) / kSeeds;
  // One draw is off by about √(p/(1−p)) = 0.65 relative; the mean of 200 by about 0.05.
  EXPECT_LT(((mean - plain).norm() / plain.norm()).item<double>(), 0.15);
}

/// Makes each trained matrix's gradient again from what it sees.
class GradientsAgain final : public MatrixObserver {
 public:
  explicit GradientsAgain(size_t sites) : dA_RI(sites), dB_OR(sites) {}
  void OnA(size_t site, const at::Tensor& x_NI, const at::Tensor& dz_NR) override {
    dA_RI[site] = dz_NR.t().mm(x_NI);
  }
  void OnB(size_t site, const at::Tensor& z_NR, const at::Tensor& dy_NO) override {
    dB_OR[site] = dy_NO.t().mm(z_NR);
  }
  std::vector<at::Tensor> dA_RI;
  std::vector<at::Tensor> dB_OR;
};

TEST(MatrixObserverTest, ItSeesWhatTheGradientsOfTrainedMatricesAreMadeOf) {
  for (const std::string family : {"llama", "gpt2", "roberta"}) {
    const auto model = TinyModel(family, {.dtype = at::kDouble});
    PackedBatch batch = TinyBatch({9, 4});
    if (family == "roberta") batch.labels_L = batch.labels_L % 5;
    for (const bool checkpointing : {false, true}) {
      const AdapterBinding adapters = testing::TinyAdapters(*model, at::kDouble, 0.4);
      GradientsAgain observer(model->sites().size());
      model
          ->LossSum(batch, adapters,
                    {.gradient_checkpointing = checkpointing,
                     .training = true,
                     .dropout_seed = 3,
                     .observer = &observer})
          .backward();
      for (size_t i = 0; i < model->sites().size(); ++i) {
        const LowRank& factors = adapters[0][i].low_rank;
        EXPECT_LE((observer.dA_RI[i] - factors.A_RI.grad()).abs().max().item<double>(), 1e-12)
            << family << " " << model->sites()[i].path;
        EXPECT_LE((observer.dB_OR[i] - factors.B_OR.grad()).abs().max().item<double>(), 1e-12)
            << family << " " << model->sites()[i].path;
      }
    }
  }
}

TEST(MatrixObserverTest, AFrozenSideIsNotShown) {
  const auto model = TinyModel("llama", {.dtype = at::kDouble});
  AdapterBinding adapters = testing::TinyAdapters(*model, at::kDouble);
  for (Factors& factors : adapters[0]) factors.low_rank.A_RI = factors.low_rank.A_RI.detach();
  GradientsAgain observer(model->sites().size());
  model->LossSum(TinyBatch({6}), adapters, {.observer = &observer}).backward();
  EXPECT_FALSE(observer.dA_RI[0].defined());
  EXPECT_TRUE(observer.dB_OR[0].defined());
}

TEST(AnswersTest, OfAllTokensInOrderTheyAreTheVocabulary) {
  const auto model = TinyModel("llama", {.dtype = at::kDouble});
  const PackedBatch batch = TinyBatch({9, 4});
  AdapterBinding adapters = testing::TinyAdapters(*model, at::kDouble);
  const at::Tensor& leaf = adapters[0][2].low_rank.B_OR;
  const auto run = [&](const ForwardOptions& options) {
    const at::Tensor loss = model->LossSum(batch, adapters, options);
    loss.backward();
    const at::Tensor gradient = leaf.grad().clone();
    leaf.mutable_grad() = at::Tensor();
    return std::pair(loss.item<double>(), gradient);
  };
  const auto [loss, gradient] = run({});
  const auto [again, gradient_again] = run({.answers_V = at::arange(31, at::kLong)});
  EXPECT_EQ(loss, again);
  EXPECT_TRUE(at::equal(gradient, gradient_again));
  EXPECT_THROW(static_cast<void>(model->LossSum(batch, adapters, {.answers_V = at::arange(2)})),
               c10::Error);  // a label beyond the answers
}

}  // namespace
}  // namespace weft
