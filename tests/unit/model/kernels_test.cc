// The fused CPU kernels against compositions of ATen operations in float64.

#include "common/model/kernels.h"

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
};

TEST_P(KernelsTest, AttentionAndItsGradient) {
  const std::vector<AttentionCase> cases = {
      {{8, 4, 8}, 0, {5, 1, 23, 24, 25, 90}},
      {{9, 3, 64}, 0, {130, 257}},
      {{4, 4, 24}, 0, {17, 16, 15}},
      {{8, 2, 10}, 7, {40, 3, 150}},
      {{2, 1, 16}, 32, {200}},
      {{1, 1, 128}, 0, {49}},
  };
  for (const AttentionCase& one : cases) {
    std::vector<int64_t> starts = {0};
    for (int64_t length : one.lengths) starts.push_back(starts.back() + length);
    const RowIndex rows = MakeRowIndex(starts, at::kCPU);
    const AttentionShape shape{one.layout, 0.3, one.window};
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

INSTANTIATE_TEST_SUITE_P(All, KernelsTest,
                         ::testing::Values(Case{at::kFloat, 3e-6}, Case{at::kBFloat16, 8e-3}),
                         [](const auto& param) {
                           return param.param.dtype == at::kFloat ? std::string("float32")
                                                                  : std::string("bfloat16");
                         });

}  // namespace
}  // namespace weft
