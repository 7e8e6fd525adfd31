#include "common/laplace/statistics.h"

#include <cmath>

#include <gtest/gtest.h>

#include "tests/unit/laplace/random_problem.h"

namespace weft {
namespace {

using testing::RandomStatistics;
using testing::RandomTensor;
using testing::RelativeError;
using testing::Sides;

const std::vector<Sides> kSides = {{2, 9, 0, 4}, {9, 2, 0, 0}};

TEST(LaplaceStatisticsTest, SumsOfDisjointDataAreThoseOfAllOfIt) {
  LaplaceStatistics all{"h", 0, 0, 0, {{"m", 0, Gram::Whole(5), Gram::Whole(3)}}};
  std::vector<LaplaceStatistics> parts;
  for (const uint64_t examples : {4, 7, 2}) {
    const auto rows = static_cast<int64_t>(examples);
    const at::Tensor a = RandomTensor(Str("a", rows), {rows, 5});
    const at::Tensor g = RandomTensor(Str("g", rows), {rows, 3});
    LaplaceStatistics part{
        "h", examples, 2, -1.5, {{"m", examples, Gram::Whole(5), Gram::Whole(3)}}};
    for (LaplaceStatistics* sums : {&part, &all}) {
      sums->matrices[0].input.Add(a);
      sums->matrices[0].output.Add(g);
    }
    parts.push_back(std::move(part));
  }
  const Result<LaplaceStatistics> sum = MergeStatistics(
      std::vector<ClientStatistics>{{"a", &parts[0]}, {"b", &parts[1]}, {"c", &parts[2]}});
  ASSERT_TRUE(sum.ok()) << sum.status();
  EXPECT_EQ(sum->examples, 13u);
  EXPECT_EQ(sum->batches, 6u);
  EXPECT_EQ(sum->log_likelihood, -4.5);
  EXPECT_EQ(sum->matrices[0].rows, 13u);
  EXPECT_LE(RelativeError(sum->matrices[0].input.Matrix(), all.matrices[0].input.Matrix()), 1e-15);
  EXPECT_LE(RelativeError(sum->matrices[0].output.Matrix(), all.matrices[0].output.Matrix()),
            1e-15);
}

TEST(LaplaceStatisticsTest, TheOrderInWhichClientsAreListedChangesNoBit) {
  const LaplaceStatistics x = RandomStatistics(kSides, 5, 2, "x");
  const LaplaceStatistics y = RandomStatistics(kSides, 6, 2, "y");
  const LaplaceStatistics z = RandomStatistics(kSides, 7, 2, "z");
  const LaplaceStatistics one =
      *MergeStatistics(std::vector<ClientStatistics>{{"x", &x}, {"y", &y}, {"z", &z}});
  const LaplaceStatistics two =
      *MergeStatistics(std::vector<ClientStatistics>{{"z", &z}, {"x", &x}, {"y", &y}});
  EXPECT_EQ(one.log_likelihood, two.log_likelihood);
  for (size_t m = 0; m < kSides.size(); ++m) {
    EXPECT_TRUE(at::equal(one.matrices[m].input.values(), two.matrices[m].input.values()));
    EXPECT_TRUE(at::equal(one.matrices[m].output.values(), two.matrices[m].output.values()));
  }
}

TEST(LaplaceStatisticsTest, AServerCanAffordWiderRootsThanItsClients) {
  const LaplaceStatistics x = RandomStatistics(kSides, 5, 2, "x");
  const LaplaceStatistics y = RandomStatistics(kSides, 6, 2, "y");
  const std::vector<ClientStatistics> clients = {{"x", &x}, {"y", &y}};
  const at::Tensor exact = x.matrices[0].input.Matrix() + y.matrices[0].input.Matrix();
  const LaplaceStatistics wide = *MergeStatistics(clients, 8);
  EXPECT_EQ(wide.matrices[0].input.rank(), 8);
  EXPECT_LE(RelativeError(wide.matrices[0].input.Matrix(), exact), 1e-13);
  EXPECT_EQ(MergeStatistics(clients)->matrices[0].input.rank(), 4);
}

class MergeRefusalTest : public ::testing::Test {
 protected:
  void ExpectRefused(Code code, const std::string& what) {
    const Result<LaplaceStatistics> merged =
        MergeStatistics(std::vector<ClientStatistics>{{"c01", &good_}, {"c07", &odd_}});
    ASSERT_FALSE(merged.ok()) << what;
    EXPECT_EQ(merged.status().code(), code) << merged.status();
    for (const std::string& part : {std::string("c07"), what}) {
      EXPECT_NE(merged.status().message().find(part), std::string::npos)
          << merged.status() << " should name " << part;
    }
    odd_ = good_;
  }

  LaplaceStatistics good_ = RandomStatistics(kSides, 5);
  LaplaceStatistics odd_ = good_;
};

TEST_F(MergeRefusalTest, WhatWasMeasuredElsewhereDoesNotAdd) {
  odd_.adapter_hash = "other";
  ExpectRefused(Code::kFailedPrecondition, "adapter other");
  odd_.matrices.pop_back();
  ExpectRefused(Code::kFailedPrecondition, "1 matrices, wanted 2");
  std::swap(odd_.matrices[0], odd_.matrices[1]);
  ExpectRefused(Code::kFailedPrecondition, "matrix m1, wanted m0");
  odd_.matrices[1].output = Gram::Whole(8);
  ExpectRefused(Code::kFailedPrecondition,
                "output side is a whole factor of 8, wanted a whole factor of 9");
  odd_.matrices[0].input = Gram::Whole(9);
  ExpectRefused(Code::kFailedPrecondition, "input side is a whole factor of 9, wanted a root of 9");
}

TEST_F(MergeRefusalTest, WhatCannotBeStatisticsIsRefused) {
  odd_.examples = 0;
  ExpectRefused(Code::kInvalidArgument, "no examples");
  odd_.log_likelihood = std::nan("");
  ExpectRefused(Code::kInvalidArgument, "log-likelihood");
  odd_.log_likelihood = 0.5;
  ExpectRefused(Code::kInvalidArgument, "log-likelihood 0.5");
  odd_.matrices[1].rows = 0;
  ExpectRefused(Code::kInvalidArgument, "m1: no input rows");
  odd_.matrices[1].name = "m0";
  ExpectRefused(Code::kInvalidArgument, "m0 comes twice");
}

TEST_F(MergeRefusalTest, ThereMustBeClientsAndEachOnce) {
  EXPECT_EQ(MergeStatistics({}).status().code(), Code::kInvalidArgument);
  const Result<LaplaceStatistics> twice =
      MergeStatistics(std::vector<ClientStatistics>{{"c01", &good_}, {"c01", &odd_}});
  EXPECT_NE(twice.status().message().find("c01 comes twice"), std::string::npos) << twice.status();
}

}  // namespace
}  // namespace weft
