#include "common/adapters/singular_form.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

at::Tensor Product(const SingularForm& form) {
  return at::matmul(form.U_OQ * form.S_Q, form.V_IQ.t());
}

void ExpectOrthonormal(const at::Tensor& columns) {
  const at::Tensor gram = at::matmul(columns.t(), columns);
  EXPECT_TRUE(at::allclose(gram, at::eye(gram.size(0), at::kDouble), 1e-12, 1e-12));
}

TEST(SingularFormTest, ItIsTheSvdOfTheProductWhateverTheRank) {
  at::manual_seed(2);
  for (const int64_t rank : {1, 3, 5, 7, 12}) {  // above 5 and 7 the factors are wider than long
    const LowRank factors{at::randn({rank, 7}, at::kDouble), at::randn({5, rank}, at::kDouble)};
    const SingularForm form = SingularFormOf(factors);
    const at::Tensor whole = at::matmul(factors.B_OR, factors.A_RI);
    ASSERT_EQ(form.rank(), std::min<int64_t>(rank, 5));
    EXPECT_TRUE(at::allclose(Product(form), whole, 1e-12, 1e-12)) << rank;
    EXPECT_TRUE(
        at::allclose(form.S_Q, at::linalg_svdvals(whole).narrow(0, 0, form.rank()), 1e-12, 1e-12))
        << rank;
    ExpectOrthonormal(form.U_OQ);
    ExpectOrthonormal(form.V_IQ);
  }
}

TEST(SingularFormTest, VectorsOfZeroSingularValuesAreOrthonormalToo) {
  const LowRank zero{at::randn({3, 7}), at::zeros({5, 3})};
  const SingularForm form = SingularFormOf(zero);
  EXPECT_EQ(form.S_Q.abs().max().item<double>(), 0);
  ExpectOrthonormal(form.U_OQ);
  ExpectOrthonormal(form.V_IQ);
}

TEST(SingularFormTest, EqualUpdatesHaveEqualForms) {
  at::manual_seed(3);
  const LowRank factors{at::randn({2, 7}, at::kDouble), at::randn({5, 2}, at::kDouble)};
  const SingularForm form = SingularFormOf(factors);
  const SingularForm turned = SingularFormOf({-2 * factors.A_RI, -0.5 * factors.B_OR});
  EXPECT_TRUE(at::allclose(form.U_OQ, turned.U_OQ));
  EXPECT_TRUE(at::allclose(form.V_IQ, turned.V_IQ));
}

TEST(SingularFormTest, BalancedFactorsKeepTheProductAndWeighTheSame) {
  at::manual_seed(4);
  const LowRank factors{at::randn({3, 7}, at::kDouble), at::randn({5, 3}, at::kDouble)};
  const LowRank balanced = SingularFormOf(factors).Balanced();
  EXPECT_TRUE(at::allclose(at::matmul(balanced.B_OR, balanced.A_RI),
                           at::matmul(factors.B_OR, factors.A_RI), 1e-12, 1e-12));
  EXPECT_TRUE(at::allclose(at::matmul(balanced.A_RI, balanced.A_RI.t()),
                           at::matmul(balanced.B_OR.t(), balanced.B_OR), 1e-12, 1e-12));
  EXPECT_EQ(SingularFormOf(factors).Leading(2).rank(), 2);
  EXPECT_EQ(SingularFormOf(factors).Leading(9).rank(), 3);
}

TEST(SingularFormTest, FactorsOfNoRankHaveAnEmptyForm) {
  const SingularForm form = SingularFormOf({at::zeros({0, 7}), at::zeros({5, 0})});
  EXPECT_EQ(form.rank(), 0);
  EXPECT_EQ(form.Balanced().A_RI.size(1), 7);
}

}  // namespace
}  // namespace weft
