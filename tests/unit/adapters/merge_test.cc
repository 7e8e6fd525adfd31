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
  EXPECT_TRUE(at::allclose((*merged)[0].value, weights[0].value + Delta(), 1e-5, 1e-6));
  EXPECT_TRUE((*merged)[1].value.is_same(weights[1].value));
}

TEST(MergeTest, TransposedWeightsStayTransposed) {
  const std::vector<NamedTensor> weights = {{"h.0.c_fc.weight", at::randn({6, 10})}};
  const auto merged = MergeIntoWeights(weights, Adapter(), {.stored_transposed = true});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE((*merged)[0].value.is_contiguous());
  EXPECT_TRUE(at::allclose((*merged)[0].value, weights[0].value + Delta().t(), 1e-5, 1e-6));
}

TEST(MergeTest, HalfPrecisionIsRoundedOnce) {
  const at::Tensor stored = at::randn({10, 6}).to(at::kBFloat16);
  const auto merged = MergeIntoWeights({{"h.0.c_fc.weight", stored}}, Adapter(), {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(at::equal((*merged)[0].value, (stored.to(at::kFloat) + Delta()).to(at::kBFloat16)));
}

// Factors of rank 3 with two entries in each row of A and each column of B.
LowRankAdapter SparseAdapter(uint64_t seed) {
  at::manual_seed(seed);
  at::Tensor A_RI = at::zeros({3, 60});
  at::Tensor B_OR = at::zeros({100, 3});
  for (int64_t r = 0; r < 3; ++r) {
    A_RI[r].index_put_({at::randperm(60).slice(0, 0, 2)}, at::randn({2}) + 3);
    B_OR.select(1, r).index_put_({at::randperm(100).slice(0, 0, 2)}, at::randn({2}) + 3);
  }
  return {{{"h.0.c_fc", 60, 100}, {A_RI, B_OR}}};
}

at::Tensor SupportOf(const LowRankAdapter& adapter) {
  const LowRank& factors = adapter[0].factors;
  return factors.B_OR.ne(0).to(at::kFloat).mm(factors.A_RI.ne(0).to(at::kFloat)).ne(0);
}

at::Tensor Bits(const at::Tensor& weight) { return weight.contiguous().view(at::kShort); }

TEST(MergeTest, SparseFactorsTouchTheirSupportAndNoOtherBit) {
  const LowRankAdapter adapter = SparseAdapter(5);
  const at::Tensor touched = SupportOf(adapter);
  ASSERT_GE(touched.count_nonzero().item<int64_t>(), 4);
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    at::Tensor stored = at::randn({100, 60}).to(type);
    stored.masked_fill_(touched.logical_not() & at::rand({100, 60}).lt(0.1), -0.0);
    const auto merged = MergeIntoWeights({{"h.0.c_fc.weight", stored}}, adapter, {});
    ASSERT_TRUE(merged.ok()) << merged.status();
    const at::Tensor& got = (*merged)[0].value;
    EXPECT_EQ(got.scalar_type(), type);
    const at::Tensor same =
        Bits(got).eq(Bits(stored)).view({100, 60, -1}).all(2);  // a float is two words
    EXPECT_TRUE(same.masked_select(touched.logical_not()).all().item<bool>());
    EXPECT_FALSE(same.masked_select(touched).any().item<bool>());
    const LowRank& factors = adapter[0].factors;
    const at::Tensor wanted = (stored.to(at::kFloat) + factors.B_OR.mm(factors.A_RI)).to(type);
    EXPECT_TRUE(at::allclose(got, wanted, 1e-6, 1e-6));
  }
}

TEST(MergeTest, SparseFactorsOfATransposedWeightTouchWhatTheyShould) {
  const LowRankAdapter adapter = SparseAdapter(6);
  const at::Tensor stored = at::randn({60, 100});
  const auto merged =
      MergeIntoWeights({{"h.0.c_fc.weight", stored}}, adapter, {.stored_transposed = true});
  ASSERT_TRUE(merged.ok()) << merged.status();
  const at::Tensor& got = (*merged)[0].value;
  EXPECT_TRUE(got.is_contiguous());
  EXPECT_TRUE(at::equal(got.ne(stored).t(), SupportOf(adapter)));
}

TEST(MergeTest, AnAdapterOfZerosChangesNothing) {
  const at::Tensor stored = at::full({100, 60}, -0.0);
  const LowRankAdapter zero = {{{"h.0.c_fc", 60, 100}, {at::ones({2, 60}), at::zeros({100, 2})}}};
  const auto merged = MergeIntoWeights({{"h.0.c_fc.weight", stored}}, zero, {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_TRUE(at::equal(Bits((*merged)[0].value), Bits(stored)));
}

// What stacking sends out: client blocks side by side, weights on B.
TEST(MergeTest, StackedSparseAdaptersStayInTheUnionOfTheirSupports) {
  const std::vector<LowRankAdapter> clients = {SparseAdapter(7), SparseAdapter(8),
                                               SparseAdapter(9)};
  std::vector<at::Tensor> A;
  std::vector<at::Tensor> B;
  at::Tensor touched = at::zeros({100, 60}, at::kBool);
  for (const LowRankAdapter& client : clients) {
    A.push_back(client[0].factors.A_RI);
    B.push_back(client[0].factors.B_OR / 3);
    touched = touched | SupportOf(client);
  }
  const at::Tensor stored = at::randn({100, 60}).to(at::kBFloat16);
  const LowRankAdapter stack = {{clients[0][0].site, {at::cat(A, 0), at::cat(B, 1)}}};
  const auto merged = MergeIntoWeights({{"h.0.c_fc.weight", stored}}, stack, {});
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_FALSE(
      (*merged)[0].value.ne(stored).masked_select(touched.logical_not()).any().item<bool>());
  // The mean of the factors alone would reach entries that no client touched.
  const at::Tensor naive = ((A[0] + A[1] + A[2]) / 3).ne(0).to(at::kFloat);
  const at::Tensor cross = (B[0] + B[1] + B[2]).ne(0).to(at::kFloat).mm(naive).ne(0);
  EXPECT_TRUE((cross & touched.logical_not()).any().item<bool>());
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
