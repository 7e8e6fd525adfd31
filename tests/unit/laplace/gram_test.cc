#include "common/laplace/gram.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/laplace/random_problem.h"

namespace weft {
namespace {

using testing::RandomTensor;
using testing::RelativeError;

constexpr double kRounding = 1e-13;

at::Tensor OuterSum(const at::Tensor& rows_ND) {
  return at::einsum("nd,ne->de", {rows_ND, rows_ND});
}

TEST(GramTest, WholeOnesAreTheSumOfOuterProductsOverCalls) {
  const at::Tensor rows = RandomTensor("rows", {9, 4});
  Gram gram = Gram::Whole(4);
  gram.Add(rows.narrow(0, 0, 5));
  const Gram before = gram;
  gram.Add(rows.narrow(0, 5, 4).to(at::kFloat));
  EXPECT_LE(RelativeError(gram.Matrix(), OuterSum(rows)), 1e-7);  // four rows were float32
  EXPECT_LE(RelativeError(before.Matrix(), OuterSum(rows.narrow(0, 0, 5))), kRounding);
}

TEST(GramTest, RootsOfEnoughColumnsLoseNothing) {
  const at::Tensor rows = RandomTensor("rows", {6, 20});
  Gram gram = Gram::Root(20, 7);
  for (int64_t n = 0; n < 6; n += 2) gram.Add(rows.narrow(0, n, 2));
  EXPECT_EQ(gram.rank(), 7);
  EXPECT_LE(RelativeError(gram.Matrix(), OuterSum(rows)), kRounding);
  EXPECT_LE(gram.values().narrow(1, 6, 1).abs().max().item<double>(), 1e-14);  // nothing left
}

TEST(GramTest, NarrowRootsKeepTheLeadingDirections) {
  const at::Tensor rows = RandomTensor("rows", {12, 8});
  Gram gram = Gram::Root(8, 3);
  gram.Add(rows);
  const auto [values, vectors] = at::linalg_eigh(OuterSum(rows));
  const at::Tensor top = vectors.narrow(1, 5, 3);
  const at::Tensor best = at::matmul(top * values.narrow(0, 5, 3), top.t());
  EXPECT_LE(RelativeError(gram.Matrix(), best), kRounding);
  const at::Tensor lengths = gram.values().norm(2, {0});
  EXPECT_TRUE(lengths.diff().le(0).all().item<bool>());
  const at::Tensor largest = gram.values().gather(0, gram.values().abs().argmax(0, true));
  EXPECT_TRUE(largest.gt(0).all().item<bool>());
  // What was cut away is missing: it falls short, never beyond.
  const at::Tensor missing = std::get<0>(at::linalg_eigh(OuterSum(rows) - gram.Matrix()));
  EXPECT_GE(missing.min().item<double>(), -1e-12);
}

TEST(GramTest, ASumOfRootsDoesNotDependOnTheirOrder) {
  std::vector<Gram> parts;
  at::Tensor exact = at::zeros({10, 10}, at::kDouble);
  for (const std::string label : {"x", "y", "z"}) {
    parts.push_back(Gram::Root(10, 3));
    parts.back().Add(RandomTensor(label, {5, 10}));
    exact += parts.back().Matrix();
  }
  const Gram all = Gram::Sum(std::vector<const Gram*>{&parts[0], &parts[1], &parts[2]}, 9);
  EXPECT_LE(RelativeError(all.Matrix(), exact), kRounding);
  const Gram forth = Gram::Sum(std::vector<const Gram*>{&parts[0], &parts[1], &parts[2]});
  const Gram back = Gram::Sum(std::vector<const Gram*>{&parts[2], &parts[1], &parts[0]});
  EXPECT_EQ(forth.rank(), 3);
  EXPECT_LE(RelativeError(back.values(), forth.values()), 1e-11);
  EXPECT_GT(RelativeError(forth.Matrix(), exact), 0.01);  // three columns are too few for nine
}

TEST(GramTest, EigenvectorsRebuildTheMatrix) {
  const at::Tensor rows = RandomTensor("rows", {3, 6});
  Gram whole = Gram::Whole(6);
  Gram root = Gram::Root(6, 4);
  for (Gram* gram : {&whole, &root}) {
    gram->Add(rows);
    const FactorEigen eigen = gram->Decompose();
    EXPECT_EQ(eigen.dim(), 6);
    EXPECT_EQ(eigen.complete(), gram->whole());
    EXPECT_GE(eigen.values_K.min().item<double>(), 0);
    const at::Tensor again = at::matmul(eigen.vectors_DK * eigen.values_K, eigen.vectors_DK.t());
    EXPECT_LE(RelativeError(again, OuterSum(rows)), kRounding);
    const at::Tensor unit = at::matmul(eigen.vectors_DK.t(), eigen.vectors_DK);
    EXPECT_LE(RelativeError(unit, at::eye(unit.size(0), at::kDouble)), kRounding);
  }
}

TEST(GramTest, TimesAndRaisedDiagonalsChangeTheMatrixTheyStandFor) {
  Gram root = Gram::Root(5, 2);
  Gram whole = Gram::Whole(5);
  for (Gram* gram : {&root, &whole}) {
    gram->Add(RandomTensor("rows", {4, 5}));
    EXPECT_LE(RelativeError(gram->Times(0.25).Matrix(), gram->Matrix() * 0.25), kRounding);
  }
  const at::Tensor raised = whole.WithRaisedDiagonal(0.5, 2).Matrix();
  const at::Tensor wanted =
      whole.Matrix() + at::diag(whole.Matrix().diagonal() * 0.5) + 2 * at::eye(5, at::kDouble);
  EXPECT_LE(RelativeError(raised, wanted), kRounding);
  EXPECT_THROW(static_cast<void>(root.WithRaisedDiagonal(0.5, 2)), CheckFailure);
}

TEST(GramTest, ForeignValuesAreCheckedBeforeTheyAreUsed) {
  Gram gram = Gram::Whole(3);
  gram.Add(RandomTensor("rows", {4, 3}));
  const at::Tensor good = gram.values();
  ASSERT_TRUE(Gram::From(good.to(at::kFloat), 3, true).ok());
  ASSERT_TRUE(Gram::From(RandomTensor("root", {3, 2}), 3, false).ok());
  at::Tensor skew = good.clone();
  skew[0][1] += 1;
  at::Tensor hole = good.clone();
  hole[2][2] = std::nan("");
  const std::pair<at::Tensor, std::string> bad[] = {{at::Tensor(), "floating type"},
                                                    {good.to(at::kLong), "floating type"},
                                                    {good.narrow(0, 0, 2), "wanted [3"},
                                                    {good.narrow(1, 0, 2), "wanted [3"},
                                                    {good.view({1, 3, 3}), "wanted [3"},
                                                    {skew, "not symmetric"},
                                                    {hole, "not finite"},
                                                    {-good, "negative"}};
  for (const auto& [values, message] : bad) {
    const Result<Gram> got = Gram::From(values, 3, true);
    ASSERT_FALSE(got.ok()) << message;
    EXPECT_EQ(got.status().code(), Code::kInvalidArgument);
    EXPECT_NE(got.status().message().find(message), std::string::npos) << got.status();
  }
  EXPECT_FALSE(Gram::From(at::empty({3, 0}, at::kDouble), 3, false).ok());
}

TEST(GramTest, ForeignValuesAreCopied) {
  at::Tensor values = RandomTensor("root", {3, 2});
  const Gram gram = *Gram::From(values, 3, false);
  values.zero_();
  EXPECT_GT(gram.values().abs().max().item<double>(), 0);
}

TEST(GramTest, LargeSidesBecomeRoots) {
  EXPECT_TRUE(Gram::ForSide(99, 100, 10).whole());
  EXPECT_FALSE(Gram::ForSide(100, 100, 10).whole());
  EXPECT_EQ(Gram::ForSide(100, 100, 10).rank(), 10);
}

}  // namespace
}  // namespace weft
