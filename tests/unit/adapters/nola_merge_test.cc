#include "common/adapters/nola_merge.h"

#include <gtest/gtest.h>

namespace weft {
namespace {

NolaCoefficients Coefficients(int64_t k) {
  return {at::randn({k}, at::kDouble), at::randn({k}, at::kDouble)};
}

TEST(NolaMergeTest, SizesThatDoNotMatchAreRefused) {
  at::manual_seed(1);
  const NolaCoefficients few = Coefficients(3), many = Coefficients(5);
  EXPECT_EQ(PadNola(many, 4).status().code(), Code::kInvalidArgument);
  const std::vector<NolaCoefficients> mixed = {few, many};
  const std::vector<double> weights = {0.5, 0.5}, lone = {1.0};
  EXPECT_NE(NolaGamma(mixed, weights).status().message().find("client 1"), std::string::npos);
  EXPECT_EQ(NolaGamma(mixed, lone).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(NolaGamma({}, {}).status().code(), Code::kInvalidArgument);
}

TEST(NolaMergeTest, OneClientGivesItsOwnProductAtItsOwnRank) {
  at::manual_seed(2);
  const NolaCoefficients own = Coefficients(6);
  const NolaFrozen frozen{at::randn({6, 2, 7}, at::kDouble), at::randn({6, 5, 2}, at::kDouble),
                          at::randn({2, 7}, at::kDouble), at::zeros({5, 2}, at::kDouble)};
  const std::vector<NolaCoefficients> clients = {own};
  const std::vector<double> weights = {1.0};
  const LowRank factors = NolaFactors(*NolaGamma(clients, weights), frozen, 0.5);
  EXPECT_EQ(factors.A_RI.size(0), 2);
  const double root = std::sqrt(6.0);
  const at::Tensor A =
      frozen.offset_A_RI + at::tensordot(own.alpha_K, frozen.bases_A_KRI, {0}, {0}) / root;
  const at::Tensor B = at::tensordot(own.beta_K, frozen.bases_B_KOR, {0}, {0}) / root;
  EXPECT_TRUE(at::allclose(factors.B_OR.mm(factors.A_RI), B.mm(A) * 0.5, 1e-10, 1e-12));
}

}  // namespace
}  // namespace weft
