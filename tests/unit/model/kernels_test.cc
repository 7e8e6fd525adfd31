// The fused CPU kernels against compositions of ATen operations in float64.

#include "common/model/kernels.h"

#include <cmath>
#include <iterator>
#include <limits>

#include <gtest/gtest.h>

#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

using testing::Random;

double Distance(const at::Tensor& got, const at::Tensor& wanted) {
  return ((got.to(at::kDouble) - wanted).norm() / (wanted.norm() + 1e-12)).item<double>();
}

struct Case {
  at::ScalarType dtype;
  double tolerance;
};

class KernelsTest : public ::testing::TestWithParam<Case> {
 protected:
  // The same values in the tested dtype and, exactly, in float64.
  static std::pair<at::Tensor, at::Tensor> Both(at::IntArrayRef shape, uint64_t seed,
                                                double scale = 1) {
    const at::Tensor x = Random(shape, seed, scale).to(GetParam().dtype);
    return {x, x.to(at::kDouble)};
  }
  static double tolerance() { return GetParam().tolerance; }
};

TEST_P(KernelsTest, RmsNormAndItsGradient) {
  for (int64_t columns : {1, 7, 64, 577}) {
    const auto [x, x64] = Both({37, columns}, 1);
    const auto [w, w64] = Both({columns}, 2);
    const auto [dy, dy64] = Both({37, columns}, 3);
    const auto [dx, dx64] = Both({37, columns}, 4);
    at::Tensor stats, stats64;
    const at::Tensor y = NormForward({w, {}, 1e-5}, x, &stats);
    EXPECT_LT(Distance(y, NormForward({w64, {}, 1e-5}, x64, &stats64)), tolerance());
    EXPECT_TRUE(at::equal(NormAgain({w, {}, 1e-5}, x, stats), y));
    NormBackward({w, {}, 1e-5}, x, stats, dy, dx, nullptr);
    NormBackward({w64, {}, 1e-5}, x64, stats64, dy64, dx64, nullptr);
    EXPECT_LT(Distance(dx, dx64), tolerance()) << columns;
  }
}

TEST_P(KernelsTest, RotationAndItsInverse) {
  const HeadLayout layout{.heads = 3, .kv_heads = 1, .head_dim = 10};
  const at::Tensor angle = at::outer(at::arange(4, 20, at::kFloat), Random({5}, 8, 1, at::kFloat));
  const RopeTable table{angle.cos(), angle.sin(), 4};
  const at::Tensor positions = at::tensor({4, 5, 19, 4, 11}, at::kLong);
  const auto [x, x64] = Both({5, layout.features()}, 1);
  const at::Tensor before = x.clone();
  Rotate(table, positions, layout, false, x);
  Rotate(table, positions, layout, false, x64);
  EXPECT_LT(Distance(x, x64), tolerance());
  Rotate(table, positions, layout, true, x);
  EXPECT_LT(Distance(x, before.to(at::kDouble)), 2 * tolerance());
}

TEST_P(KernelsTest, SwiGluAndItsGradient) {
  const auto [up, up64] = Both({23, 2 * 45}, 1, 4);
  const auto [ds, ds64] = Both({23, 45}, 2);
  EXPECT_LT(Distance(ActivationForward(Activation::kSilu, true, up),
                     ActivationForward(Activation::kSilu, true, up64)),
            tolerance());
  ActivationBackward(Activation::kSilu, true, up, ds);
  ActivationBackward(Activation::kSilu, true, up64, ds64);
  EXPECT_LT(Distance(up, up64), tolerance()) << "gradient";
  EXPECT_LT(Distance(ds, ds64), tolerance()) << "the activation again";
}

TEST_P(KernelsTest, SwiGluOfExtremeValuesIsFinite) {
  const at::Tensor up = at::tensor({-1e4, -100.0, 0.0, 100.0, 1e4, 1.0, 1.0, 1.0, 1.0, 1.0})
                            .view({1, 10})
                            .to(GetParam().dtype);
  const at::Tensor s = ActivationForward(Activation::kSilu, true, up);
  EXPECT_TRUE(at::isfinite(s).all().item<bool>()) << s;
  EXPECT_NEAR(s[0][0].item<double>(), 0, 1e-30);
  EXPECT_NEAR(s[0][3].item<double>(), 100, 0.5);
}

TEST_P(KernelsTest, CrossEntropyAndItsGradient) {
  for (int64_t vocabulary : {2, 31, 1000}) {
    const auto [logits, logits64] = Both({19, vocabulary}, 1, 5);
    at::Tensor labels = at::arange(19, at::kLong).remainder(vocabulary);
    const double loss = CrossEntropySum(logits, labels, false);
    EXPECT_NEAR(CrossEntropySum(logits64, labels, true), loss, 1e-5 * loss);
    EXPECT_NEAR(CrossEntropySum(logits, labels, true), loss, 1e-9 * loss);
    EXPECT_LT(Distance(logits, logits64), tolerance());
  }
}

TEST_P(KernelsTest, CrossEntropyKeepsNotANumber) {
  const auto logits = Both({2, 40}, 1).first;
  logits[1][17] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(std::isnan(CrossEntropySum(logits, at::zeros({2}, at::kLong), false)));
}

struct AttentionCase {
  HeadLayout layout;
  int64_t window;
  std::vector<int64_t> lengths;
  bool causal = true;
};

TEST_P(KernelsTest, AttentionAndItsGradient) {
  const std::vector<AttentionCase> cases = {
      {{8, 4, 8}, 0, {5, 1, 23, 24, 25, 90}},
      {{9, 3, 64}, 0, {130, 257}},
      {{4, 4, 24}, 0, {17, 16, 15}},
      {{8, 2, 10}, 7, {40, 3, 150}},
      {{2, 1, 16}, 32, {200}},
      {{1, 1, 128}, 0, {49}},
      {{8, 4, 8}, 0, {5, 1, 23, 24, 25, 90}, false},
      {{12, 12, 32}, 0, {130, 257, 16}, false},
      {{2, 1, 10}, 0, {17, 15, 49}, false},
  };
  for (const AttentionCase& one : cases) {
    std::vector<int64_t> starts = {0};
    for (int64_t length : one.lengths) starts.push_back(starts.back() + length);
    const RowIndex rows = MakeRowIndex(starts, at::kCPU);
    const AttentionShape shape{one.layout, 0.3, one.window, one.causal};
    const auto [qkv, qkv64] = Both({starts.back(), one.layout.features()}, 1);
    const auto [dout, dout64] = Both({starts.back(), one.layout.q_features()}, 2);
    at::Tensor lse, lse64;
    const at::Tensor o = AttentionForward(shape, rows, qkv, &lse);
    const at::Tensor o64 = AttentionForward(shape, rows, qkv64, &lse64);
    ASSERT_TRUE(lse.defined());
    EXPECT_LT(Distance(o, o64), tolerance());
    const at::Tensor dqkv = AttentionBackward(shape, rows, qkv, o, lse, dout);
    const at::Tensor dqkv64 = AttentionBackward(shape, rows, qkv64, o64, lse64, dout64);
    EXPECT_LT(Distance(dqkv, dqkv64), 2 * tolerance())
        << "heads " << one.layout.heads << " dim " << one.layout.head_dim;
  }
}

TEST_P(KernelsTest, AttentionDoesNotDependOnThreads) {
  const RowIndex rows = MakeRowIndex({0, 100, 140, 141}, at::kCPU);
  const AttentionShape shape{{6, 2, 16}, 0.25, 0};
  const at::Tensor qkv = Both({141, shape.layout.features()}, 1).first;
  const int threads = at::get_num_threads();
  at::Tensor lse;
  at::set_num_threads(1);
  const at::Tensor one = AttentionForward(shape, rows, qkv, &lse);
  const at::Tensor done = AttentionBackward(shape, rows, qkv, one, lse, one);
  at::set_num_threads(3);
  const at::Tensor three = AttentionForward(shape, rows, qkv, &lse);
  const at::Tensor dthree = AttentionBackward(shape, rows, qkv, three, lse, three);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
  EXPECT_TRUE(at::equal(done, dthree));
}

// A block of attention's queries, a lane and their neighbours.
constexpr int64_t kLengths[] = {1,  2,  3,  15, 16, 17, 23,  24,  25, 31,
                                33, 47, 48, 49, 64, 95, 129, 256, 257};

TEST_P(KernelsTest, AttentionOfDrawnShapesAndWindows) {
  for (uint64_t seed = 1; seed <= 40; ++seed) {
    RandomStream draw = RandomStream::Derive(seed, {"attention-shapes"});
    const auto pick = [&](std::initializer_list<int64_t> from) {
      return from.begin()[draw.Below(from.size())];
    };
    HeadLayout layout{.kv_heads = pick({1, 2, 3}),
                      .head_dim = pick({2, 6, 8, 10, 16, 34, 64, 128})};
    layout.heads = layout.kv_heads * pick({1, 2, 3, 7});
    const bool causal = draw.Below(4) != 0;
    const AttentionShape shape{layout, 0.4,
                               causal ? pick({0, 0, 1, 2, 5, 15, 16, 17, 40, 1000}) : 0, causal};
    std::vector<int64_t> starts = {0};
    for (uint64_t rows = 1 + draw.Below(4); rows > 0; --rows) {
      starts.push_back(starts.back() + kLengths[draw.Below(std::size(kLengths))]);
    }
    SCOPED_TRACE(::testing::Message() << "seed " << seed << " heads " << layout.heads << "/"
                                      << layout.kv_heads << " dim " << layout.head_dim << " window "
                                      << shape.window << " tokens " << starts.back());
    const RowIndex rows = MakeRowIndex(starts, at::kCPU);
    const auto [qkv, qkv64] = Both({starts.back(), layout.features()}, seed);
    const auto [dout, dout64] = Both({starts.back(), layout.q_features()}, seed + 100);
    at::Tensor lse, lse64;
    const at::Tensor o = AttentionForward(shape, rows, qkv, &lse);
    const at::Tensor o64 = AttentionForward(shape, rows, qkv64, &lse64);
    EXPECT_LT(Distance(o, o64), tolerance());
    const at::Tensor dqkv = AttentionBackward(shape, rows, qkv, o, lse, dout);
    const at::Tensor dqkv64 = AttentionBackward(shape, rows, qkv64, o64, lse64, dout64);
    EXPECT_LT(Distance(dqkv, dqkv64), 2 * tolerance());
  }
}

TEST_P(KernelsTest, NothingOfARowReachesAnother) {
  // The middle row is poisoned: a single product across the border would show.
  const AttentionShape shape{{4, 2, 16}, 0.25, 0};
  const RowIndex rows = MakeRowIndex({0, 21, 40, 77}, at::kCPU);
  const at::Tensor qkv = Both({77, shape.layout.features()}, 1).first;
  const at::Tensor dout = Both({77, shape.layout.q_features()}, 2).first;
  at::Tensor lse;
  const at::Tensor clean = AttentionForward(shape, rows, qkv, &lse);
  const at::Tensor dclean = AttentionBackward(shape, rows, qkv, clean, lse, dout);
  const at::Tensor poisoned = qkv.clone();
  poisoned.narrow(0, 21, 19).fill_(std::numeric_limits<double>::quiet_NaN());
  const at::Tensor dirty = AttentionForward(shape, rows, poisoned, &lse);
  const at::Tensor ddirty = AttentionBackward(shape, rows, poisoned, dirty, lse, dout);
  for (const auto& [begin, count] : {std::pair(0, 21), std::pair(40, 37)}) {
    EXPECT_TRUE(at::equal(dirty.narrow(0, begin, count), clean.narrow(0, begin, count)));
    EXPECT_TRUE(at::equal(ddirty.narrow(0, begin, count), dclean.narrow(0, begin, count)));
  }
  EXPECT_TRUE(at::isnan(dirty.narrow(0, 21, 19)).all().item<bool>());
}

TEST_P(KernelsTest, AttentionLooksOnlyBackAndNotBeyondItsWindow) {
  const AttentionShape shape{{2, 1, 8}, 0.35, 6};
  const RowIndex rows = MakeRowIndex({0, 50}, at::kCPU);
  const at::Tensor qkv = Both({50, shape.layout.features()}, 1).first;
  at::Tensor lse;
  const at::Tensor before = AttentionForward(shape, rows, qkv, &lse);
  const at::Tensor changed = qkv.clone();
  changed[30].mul_(-2);
  const at::Tensor after = AttentionForward(shape, rows, changed, &lse);
  for (int64_t t = 0; t < 50; ++t) {
    const bool sees = t >= 30 && t < 36;
    EXPECT_EQ(at::equal(before[t], after[t]), !sees) << t;
  }
}

TEST_P(KernelsTest, AttentionOfHugeScoresPicksTheLargestAndStaysFinite) {
  const AttentionShape shape{{2, 2, 16}, 1.0, 0};
  const RowIndex rows = MakeRowIndex({0, 40}, at::kCPU);
  const auto [qkv, qkv64] = Both({40, shape.layout.features()}, 1, 30);  // scores of ±10,000
  const auto [dout, dout64] = Both({40, shape.layout.q_features()}, 2);
  at::Tensor lse, lse64;
  const at::Tensor o = AttentionForward(shape, rows, qkv, &lse);
  const at::Tensor o64 = AttentionForward(shape, rows, qkv64, &lse64);
  // A score of 10^4 has a float32 rounding of 10^-3, which is what its weight is off by.
  EXPECT_LT(Distance(o, o64), 5e-3);
  const at::Tensor dqkv = AttentionBackward(shape, rows, qkv, o, lse, dout);
  EXPECT_TRUE(at::isfinite(dqkv).all().item<bool>());
}

TEST_P(KernelsTest, NormsAndSwiGluOfEveryWidthAroundALane) {
  for (int64_t columns = 1; columns <= 70; ++columns) {
    const auto [x, x64] = Both({3, columns}, 1);
    const auto [w, w64] = Both({columns}, 2);
    const auto [dy, dy64] = Both({3, columns}, 3);
    const auto [dx, dx64] = Both({3, columns}, 4);
    at::Tensor stats, stats64;
    EXPECT_LT(Distance(NormForward({w, {}, 1e-6}, x, &stats),
                       NormForward({w64, {}, 1e-6}, x64, &stats64)),
              tolerance())
        << columns;
    NormBackward({w, {}, 1e-6}, x, stats, dy, dx, nullptr);
    NormBackward({w64, {}, 1e-6}, x64, stats64, dy64, dx64, nullptr);
    EXPECT_LT(Distance(dx, dx64), 2 * tolerance()) << columns;
    const auto [up, up64] = Both({3, 2 * columns}, 5, 3);
    const auto [ds, ds64] = Both({3, columns}, 6);
    EXPECT_LT(Distance(ActivationForward(Activation::kSilu, true, up),
                       ActivationForward(Activation::kSilu, true, up64)),
              tolerance())
        << columns;
    ActivationBackward(Activation::kSilu, true, up, ds);
    ActivationBackward(Activation::kSilu, true, up64, ds64);
    EXPECT_LT(Distance(up, up64), 2 * tolerance()) << columns;
    EXPECT_LT(Distance(ds, ds64), tolerance()) << columns;
  }
}

TEST_P(KernelsTest, AZeroRowIsNormedToZeroNotToNan) {
  const at::Tensor x = at::zeros({2, 40}, GetParam().dtype);
  const at::Tensor w = at::ones({40}, GetParam().dtype);
  at::Tensor stats;
  EXPECT_TRUE(at::equal(NormForward({w, {}, 1e-6}, x, &stats), x));
  const at::Tensor dx = at::zeros_like(x);
  NormBackward({w, {}, 1e-6}, x, stats, at::ones_like(x), dx, nullptr);
  EXPECT_TRUE(at::isfinite(dx).all().item<bool>());
  EXPECT_NEAR(dx[0][0].item<double>(), 1000, 5);  // 1/√eps
}

TEST_P(KernelsTest, CrossEntropyOfEveryWidthAroundALaneAndALargeVocabulary) {
  std::vector<int64_t> sizes = {4095, 4096, 4097, 4111, 8200, 49152};
  for (int64_t size = 1; size <= 50; ++size) sizes.push_back(size);
  for (const int64_t vocabulary : sizes) {
    const auto [logits, logits64] = Both({3, vocabulary}, 1, 4);
    const at::Tensor labels = at::tensor({int64_t{0}, vocabulary / 2, vocabulary - 1});
    const double loss = CrossEntropySum(logits, labels, true);
    const double wanted = CrossEntropySum(logits64, labels, true);
    EXPECT_NEAR(loss, wanted, 1e-5 * wanted + 1e-6) << vocabulary;
    EXPECT_LT(Distance(logits, logits64), tolerance()) << vocabulary;
    // softmax − one-hot: each row adds up to nothing.
    const double left = logits.to(at::kDouble).sum(1).abs().max().item<double>();
    EXPECT_LT(left, GetParam().dtype == at::kFloat ? 1e-5 : 2e-2) << vocabulary;
  }
}

TEST_P(KernelsTest, CrossEntropyOfLogitsFarApartIsExact) {
  const at::Tensor logits =
      at::tensor({-30000.0, 0.0, 30000.0, 5.0}).view({1, 4}).to(GetParam().dtype);
  const double top = logits.to(at::kDouble)[0][2].item<double>();
  EXPECT_NEAR(CrossEntropySum(logits, at::tensor({int64_t{2}}), false), 0, 1e-6);
  EXPECT_NEAR(CrossEntropySum(logits, at::tensor({int64_t{1}}), false), top, 1e-3 * top);
  (void)CrossEntropySum(logits, at::tensor({int64_t{1}}), true);
  EXPECT_TRUE(at::equal(logits.to(at::kFloat).view(-1), at::tensor({0.0F, -1.0F, 1.0F, 0.0F})));
}

TEST_P(KernelsTest, ALabelOutsideTheVocabularyIsAnErrorNotARead) {
  for (const int64_t label : {int64_t{-1}, int64_t{7}, int64_t{1} << 40}) {
    const at::Tensor logits = Both({1, 7}, 1).first;
    EXPECT_THROW((void)CrossEntropySum(logits, at::tensor({label}), false), c10::Error) << label;
  }
}

TEST_P(KernelsTest, RotationTurnsEveryHeadOfQAndKAndLeavesV) {
  for (const int64_t dim : {2, 6, 8, 34, 64, 128}) {
    const HeadLayout layout{.heads = 2, .kv_heads = 1, .head_dim = dim};
    const at::Tensor angle =
        at::outer(at::arange(3, 12, at::kFloat), Random({dim / 2}, 8).to(at::kFloat));
    const RopeTable table{angle.cos(), angle.sin(), 3};
    const at::Tensor positions = at::tensor({int64_t{3}, int64_t{11}, int64_t{7}});
    const at::Tensor x = Both({3, layout.features()}, 1).first;
    const at::Tensor turned = x.clone();
    Rotate(table, positions, layout, false, turned);
    const int64_t qk = 3 * dim;
    EXPECT_TRUE(at::equal(turned.narrow(1, qk, dim), x.narrow(1, qk, dim))) << "values";
    // A turn keeps each pair's length.
    const auto lengths = [&](const at::Tensor& t) {
      const at::Tensor pairs = t.narrow(1, 0, qk).to(at::kDouble).view({3, 3, 2, dim / 2});
      return pairs.square().sum(2).sqrt();
    };
    EXPECT_LT(Distance(lengths(turned), lengths(x)), 2 * tolerance()) << dim;
    EXPECT_FALSE(at::equal(turned.narrow(1, 0, qk), x.narrow(1, 0, qk)));
  }
}

INSTANTIATE_TEST_SUITE_P(All, KernelsTest,
                         ::testing::Values(Case{at::kFloat, 3e-6}, Case{at::kBFloat16, 8e-3}),
                         [](const auto& param) {
                           return param.param.dtype == at::kFloat ? std::string("float32")
                                                                  : std::string("bfloat16");
                         });

// What the fused loops leave to ATen, against autograd.
TEST(KernelsTest, GradientsOfNormWeightsEqualAutograds) {
  for (const bool layer_norm : {false, true}) {
    const at::Tensor x = Random({7, 12}, 1).requires_grad_(true);
    const at::Tensor w = (Random({12}, 2) + 1).requires_grad_(true);
    const at::Tensor b = Random({12}, 3).requires_grad_(true);
    const at::Tensor dy = Random({7, 12}, 4);
    at::Tensor centred = layer_norm ? x - x.mean(1, true) : x;
    at::Tensor y = centred * (centred.square().mean(1, true) + 1e-5).rsqrt() * w;
    if (layer_norm) y = y + b;
    y.backward(dy);
    const at::NoGradGuard no_grad;
    const Norm norm{w.detach(), layer_norm ? b.detach() : at::Tensor(), 1e-5};
    at::Tensor stats;
    EXPECT_LT(Distance(NormForward(norm, x.detach(), &stats), y.detach()), 1e-12);
    const at::Tensor dx = at::zeros_like(x);
    NormGrads grads;
    NormBackward(norm, x.detach(), stats, dy, dx, &grads);
    EXPECT_LT(Distance(dx, x.grad()), 1e-12);
    EXPECT_LT(Distance(grads.weight_E, w.grad()), 1e-12);
    if (layer_norm) {
      EXPECT_LT(Distance(grads.bias_E, b.grad()), 1e-12);
    }
  }
}

}  // namespace
}  // namespace weft
