#include "common/adapters/kasa_merge.h"

#include <gtest/gtest.h>

#include "common/adapters/kasa.h"

namespace weft {
namespace {

KasaFactors Random(int64_t rank) {
  return {at::randn({rank, 9}, at::kDouble), at::randn({7, rank}, at::kDouble),
          at::randn({rank}, at::kDouble)};
}

at::Tensor Delta(const KasaFactors& factors, double scaling = 1) {
  const LowRank plain = LowerKasa(factors, scaling);
  return at::matmul(plain.B_OR, plain.A_RI);
}

at::Tensor Mean(std::span<const KasaUpdate> updates) {
  at::Tensor mean = at::zeros({7, 9}, at::kDouble);
  for (const KasaUpdate& update : updates) {
    mean += update.weight * update.scaling *
            at::matmul(update.factors.B_OR * update.factors.sigma_R, update.factors.A_RI);
  }
  return mean;
}

TEST(KasaMergeTest, AStackIsTheMeanForAnyRanksAndScalings) {
  at::manual_seed(1);
  const std::vector<KasaUpdate> updates = {
      {Random(1), 2, 0.5}, {Random(3), 0.5, 0.3}, {Random(4), -1, 0.2}};
  for (const double scaling : {1.0, 2.5}) {
    const KasaFactors stack = StackKasa(updates, scaling);
    EXPECT_EQ(stack.sigma_R.size(0), 8);
    EXPECT_TRUE(at::allclose(Delta(stack, scaling), Mean(updates), 1e-12, 1e-12));
    EXPECT_TRUE(at::equal(stack.A_RI.narrow(0, 1, 3), updates[1].factors.A_RI));  // unweighted
  }
}

TEST(KasaMergeTest, WhereOnlySigmaTrainsItIsAveraged) {
  at::manual_seed(2);
  std::vector<KasaUpdate> updates = {{Random(3), 2, 0.5}, {Random(3), 2, 0.3}, {Random(3), 1, 0.2}};
  for (KasaUpdate& update : updates) {
    update.factors.A_RI = updates[0].factors.A_RI;
    update.factors.B_OR = updates[0].factors.B_OR;
  }
  const KasaFactors mean = StackKasa(updates, 2);
  EXPECT_EQ(mean.sigma_R.size(0), 3);
  EXPECT_TRUE(at::allclose(Delta(mean, 2), Mean(updates), 1e-12, 1e-12));
}

TEST(KasaMergeTest, OrthonormalFactorsLoseNothingAndAreAStartWithoutPenalty) {
  at::manual_seed(3);
  const std::vector<KasaUpdate> updates = {{Random(4), 1, 0.5}, {Random(6), 1, 0.5}};
  const KasaFactors stack = StackKasa(updates);
  const KasaFactors small = OrthonormalKasa(stack);
  EXPECT_EQ(small.sigma_R.size(0), 7);  // min(10, 7, 9)
  EXPECT_TRUE(at::allclose(Delta(small), Delta(stack), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(small.sigma_R, at::linalg_svdvals(Delta(stack)), 1e-12, 1e-12));
  AdapterSpec spec;
  spec.method = "kasa";
  spec.rank = 7;
  spec.options = {{"kasa.beta", "0"}, {"kasa.gamma", "1"}};
  const AdapterState state{
      spec, {{{"q", 9, 7}, {{"A", small.A_RI}, {"B", small.B_OR}, {"sigma", small.sigma_R}}}}, {}};
  EXPECT_LT(KasaAdapter()->Penalty(state).item<double>(), 1e-12);
}

TEST(KasaMergeTest, TruncationIsTheBestOfItsRank) {
  at::manual_seed(4);
  const KasaFactors whole = Random(6);
  const KasaFactors small = OrthonormalKasa(whole, 2);
  EXPECT_EQ(small.sigma_R.size(0), 2);
  const at::Tensor spectrum = at::linalg_svdvals(Delta(whole));
  EXPECT_NEAR((Delta(small) - Delta(whole)).norm().item<double>(),
              spectrum.narrow(0, 2, 5).norm().item<double>(), 1e-12);
}

TEST(KasaMergeTest, DifferentTruncationsAverageToOneBase) {
  at::manual_seed(5);
  const at::Tensor W_OI = at::randn({7, 9}, at::kDouble);
  const std::vector<KasaTruncation> clients = {{1, 0.2}, {4, 0.3}, {0, 0.5}};
  at::Tensor wanted = at::zeros({7, 9}, at::kDouble);
  for (const KasaTruncation& client : clients) {
    const LowRank removed = SmallestComponents(W_OI, client.removed);
    wanted += client.weight * (W_OI - at::matmul(removed.B_OR, removed.A_RI));
  }
  EXPECT_TRUE(at::allclose(MeanTruncatedBase(W_OI, clients), wanted, 1e-12, 1e-12));
}

}  // namespace
}  // namespace weft
