#include "common/adapters/merge.h"

#include <gtest/gtest.h>

#include "common/adapters/distance.h"

namespace weft {
namespace {

const LinearSite kSite = {"h.0.c_fc", 6, 10};

LowRankAdapter Adapter() {
  at::manual_seed(3);
  return {{kSite, {at::randn({2, 6}), at::randn({10, 2})}}};
}

at::Tensor Delta() {
  const LowRankAdapter adapter = Adapter();
  return adapter[0].factors.B_OR.mm(adapter[0].factors.A_RI);
}

TEST(MergeTest, AdaptedWeightsChangeAndOthersAreTheSameTensor) {
  const std::vector<NamedTensor> weights = {{"h.0.c_fc.weight", at::randn({10, 6})},
                                            {"h.0.c_fc.bias", at::randn({10})}};
  const auto merged = MergeIntoWeights(weights, Adapter(), {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(at::allclose((*merged)[0].value, weights[0].value + Delta()));
  EXPECT_TRUE((*merged)[1].value.is_same(weights[1].value));
}

TEST(MergeTest, TransposedWeightsStayTransposed) {
  const std::vector<NamedTensor> weights = {{"h.0.c_fc.weight", at::randn({6, 10})}};
  const auto merged = MergeIntoWeights(weights, Adapter(), {.stored_transposed = true});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE((*merged)[0].value.is_contiguous());
  EXPECT_TRUE(at::allclose((*merged)[0].value, weights[0].value + Delta().t()));
}

TEST(MergeTest, HalfPrecisionIsRoundedOnce) {
  const at::Tensor stored = at::randn({10, 6}).to(at::kBFloat16);
  const auto merged = MergeIntoWeights({{"h.0.c_fc.weight", stored}}, Adapter(), {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(at::equal((*merged)[0].value, (stored.to(at::kFloat) + Delta()).to(at::kBFloat16)));
}

TEST(MergeTest, WhatDoesNotFitIsNamed) {
  const auto missing = MergeIntoWeights({}, Adapter(), {});
  EXPECT_NE(missing.status().message().find("no weight h.0.c_fc.weight"), std::string::npos);
  const auto odd = MergeIntoWeights({{"h.0.c_fc.weight", at::ones({6, 10})}}, Adapter(), {});
  EXPECT_NE(odd.status().message().find("the adapter is for 10×6"), std::string::npos);
  const auto overflow =
      MergeIntoWeights({{"h.0.c_fc.weight", at::full({10, 6}, 65504).to(at::kHalf)}},
                       {{kSite, {at::full({1, 6}, 1000.0), at::full({10, 1}, 1000.0)}}}, {});
  EXPECT_EQ(overflow.status().code(), Code::kFailedPrecondition);
}

TEST(DistanceTest, NormsAndDistancesAreThoseOfTheMatrices) {
  const LowRankAdapter a = Adapter();
  LowRankAdapter b = Adapter();
  b[0].factors.B_OR = b[0].factors.B_OR + 0.1;
  const at::Tensor dW_a = a[0].factors.B_OR.mm(a[0].factors.A_RI);
  const at::Tensor dW_b = b[0].factors.B_OR.mm(b[0].factors.A_RI);
  EXPECT_NEAR(DistanceBetween(a, {}), dW_a.norm().item<double>(), 1e-5);
  EXPECT_NEAR(NormOf(a[0].factors), dW_a.norm().item<double>(), 1e-5);
  EXPECT_NEAR(DistanceBetween(a, b), (dW_a - dW_b).norm().item<double>(), 1e-5);
  EXPECT_LT(DistanceBetween(a, Adapter()), 1e-14);
}

TEST(DistanceTest, SmallDifferencesKeepTheirDigits) {
  const LowRankAdapter a = Adapter();
  LowRankAdapter b = Adapter();
  b[0].factors.B_OR = b[0].factors.B_OR.to(at::kDouble) * (1 + 1e-9);
  EXPECT_NEAR(DistanceBetween(a, b) / DistanceBetween(a, {}), 1e-9, 1e-12);
}

}  // namespace
}  // namespace weft
