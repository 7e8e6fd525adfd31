// The aggregator's part in Laplace-LoRA: what statistics it takes, and the posterior it makes.

#include "aggregator/posterior_work.h"

#include <functional>
#include <limits>

#include <gtest/gtest.h>

#include "aggregator/merge_work.h"
#include "aggregator/strategies/state_block.h"
#include "common/codec/adapter_block.h"
#include "common/evaluate/measure_curvature.h"
#include "common/laplace/evidence.h"
#include "common/laplace/statistics_file.h"
#include "common/runtime/memory_store.h"
#include "tests/support/strategy_world.h"

namespace weft {
namespace {

const std::vector<LinearSite>& Sites() {
  static const auto* sites =
      new std::vector<LinearSite>{{"layer.0.query", 6, 5}, {"layer.0.value", 4, 7}};
  return *sites;
}

class PosteriorWorkTest : public ::testing::Test {
 protected:
  PosteriorWorkTest()
      : store_({.post = [](std::function<void()> call) { call(); },
                .wall_us = [] { return int64_t{0}; },
                .fault = {}}) {
    strategy_.name = "exact-svd";
    const Result<InitJob::Output> init = RunInit(
        {.strategy = strategy_, .adapter = testing::LoraSpec(2, 4), .sites = Sites(), .seed = 5},
        control_);
    WEFT_CHECK(init.ok(), init.status());
    Write("state", init->state);
    state_ = init->state;
    adapter_ = DecodeState(init->state, "exact-svd")->adapter;
    hash_ = init->adapter_sha256;
  }

  void Write(const std::string& name, Blob bytes) {
    store_.WriteBlob(name, std::move(bytes),
                     [](Status status) { WEFT_CHECK(status.ok(), status); });
  }

  /// What an honest client measured on `examples` rows.
  LaplaceStatistics Statistics(const std::string& client, uint64_t examples) const {
    LaplaceStatistics sums;
    sums.adapter_hash = hash_;
    sums.examples = examples;
    sums.batches = 1;
    sums.log_likelihood = -0.5 * static_cast<double>(examples);
    const std::vector<std::string> names = MatrixNames(adapter_);
    const std::vector<at::Tensor> values = MatrixValues(adapter_);
    for (size_t m = 0; m < names.size(); ++m) {
      MatrixStatistics matrix{names[m], examples, Gram::Whole(values[m].size(1)),
                              Gram::Whole(values[m].size(0))};
      const auto rows = static_cast<int64_t>(examples);
      matrix.input.Add(testing::RandomMatrix(rows, values[m].size(1), client + names[m]));
      matrix.output.Add(testing::RandomMatrix(rows, values[m].size(0), client + names[m] + "g"));
      sums.matrices.push_back(std::move(matrix));
    }
    return sums;
  }

  Status Verdict(const Blob& payload, uint64_t examples) {
    Write("update", payload);
    const CutJob cut{.strategy = strategy_, .state = state_, .client = {}, .whole = true};
    AdmitJob job{.client = {ClientId{"harbour"}, testing::LoraSpec(2, 4)},
                 .header = {},
                 .sites = Sites(),
                 .blob = "update",
                 .bundle = RunCut(cut, control_)->bundle,
                 .measured = true,
                 .store = &store_};
    job.header.num_examples = examples;
    const Result<AdmitJob::Output> output = RunAdmit(job, control_);
    EXPECT_TRUE(output.ok()) << output.status();
    return output.ok() ? output->verdict : output.status();
  }

  void ExpectRefused(const LaplaceStatistics& sums, const std::string& why) {
    const Status verdict = Verdict(*EncodeStatistics({sums, std::nullopt}), 9);
    EXPECT_FALSE(verdict.ok()) << why;
    EXPECT_NE(verdict.message().find(why), std::string::npos) << verdict;
    EXPECT_NE(verdict.message().find("harbour"), std::string::npos) << verdict;
  }

  StrategySettings strategy_;
  JobControl control_;
  MemoryStore store_;
  Blob state_;
  AdapterState adapter_;
  std::string hash_;
};

TEST_F(PosteriorWorkTest, HonestStatisticsAreAdmittedWithinTheirBound) {
  const Blob payload = *EncodeStatistics({Statistics("harbour", 9), std::nullopt});
  EXPECT_TRUE(Verdict(payload, 9).ok()) << Verdict(payload, 9);
  EXPECT_LE(payload.size(), StatisticsBytesMax(Sites()));
}

TEST_F(PosteriorWorkTest, StatisticsOfAnythingElseAreRefusedByName) {
  LaplaceStatistics sums = Statistics("harbour", 9);
  sums.adapter_hash = std::string(64, 'f');
  ExpectRefused(sums, "measured at adapter");
  sums = Statistics("harbour", 9);
  sums.matrices.pop_back();
  ExpectRefused(sums, "3 matrices, wanted 4");
  sums = Statistics("harbour", 9);
  sums.matrices[2].name = "layer.7.value.A";
  ExpectRefused(sums, "layer.7.value.A");
  sums = Statistics("harbour", 9);
  sums.matrices[1].output = Gram::Whole(9);
  ExpectRefused(sums, "layer.0.query.B");
  sums = Statistics("harbour", 9);
  sums.matrices[2].input = Gram::Root(sums.matrices[2].input.dim(), 2);
  sums.matrices[2].input.Add(at::ones({1, sums.matrices[2].input.dim()}, at::kDouble));
  ExpectRefused(sums, "a root of");
  ExpectRefused(Statistics("harbour", 8), "8 examples");
  sums = Statistics("harbour", 9);
  sums.log_likelihood = std::numeric_limits<double>::quiet_NaN();
  ExpectRefused(sums, "log");
}

TEST_F(PosteriorWorkTest, BytesThatAreNoStatisticsAreRefusedWithoutACrash) {
  const Blob honest = *EncodeStatistics({Statistics("harbour", 9), std::nullopt});
  EXPECT_FALSE(Verdict(Blob::Copy("no statistics"), 9).ok());
  EXPECT_FALSE(Verdict(Blob(), 9).ok());
  for (size_t length = 0; length < honest.size(); length += 37) {
    EXPECT_FALSE(Verdict(honest.Slice(0, length), 9).ok()) << length;
  }
  // A value that is no number, in the last tensor.
  std::string bytes(honest.view());
  std::fill(bytes.end() - 8, bytes.end(), '\xff');
  EXPECT_FALSE(Verdict(Blob::Adopt(std::move(bytes)), 9).ok());
}

TEST_F(PosteriorWorkTest, ThePosteriorIsThatOfTheSumOfAllStatistics) {
  FitJob job{.strategy = "exact-svd", .state_blob = "state", .store = &store_};
  std::vector<LaplaceStatistics> own;
  for (const char* name : {"harbour", "weaver"}) {
    own.push_back(Statistics(name, 9));
    Write(name, *EncodeStatistics({own.back(), std::nullopt}));
    SpooledUpdate update;
    update.header.client = ClientId{name};
    update.blob = name;
    job.updates.push_back(update);
  }
  const Result<FitJob::Output> fitted = RunFit(job, control_);
  ASSERT_TRUE(fitted.ok()) << fitted.status();
  const LaplaceStatistics sums =
      *MergeStatistics(std::vector<ClientStatistics>{{"harbour", &own[0]}, {"weaver", &own[1]}});
  const LaplacePosterior posterior =
      *MakePosterior(sums, MatrixValues(adapter_), Normalization::kTokenRows);
  const PriorFit prior = *FitPrior(posterior, PriorSharing::kOne);
  EXPECT_EQ(fitted->precision, prior.precisions.front());
  EXPECT_EQ(fitted->log_marginal, prior.log_marginal);
  EXPECT_EQ(fitted->examples, 18u);
  EXPECT_EQ(fitted->clients, (std::vector<ClientId>{{"harbour"}, {"weaver"}}));
  const Result<StatisticsFile> file = DecodeStatistics(fitted->file, "file");
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->precision, fitted->precision);
  EXPECT_TRUE(
      at::equal(file->statistics.matrices[3].input.values(), sums.matrices[3].input.values()));
  job.precision = 3;
  const Result<FitJob::Output> given = RunFit(job, control_);
  ASSERT_TRUE(given.ok()) << given.status();
  EXPECT_EQ(given->precision, 3);
  EXPECT_LT(given->log_marginal, fitted->log_marginal) << "the evidence has one maximum";
}

TEST_F(PosteriorWorkTest, ADamagedSpoolNamesItsFile) {
  Write("broken", Blob::Copy("no statistics"));
  FitJob job{.strategy = "exact-svd", .state_blob = "state", .store = &store_};
  job.updates.resize(1);
  job.updates[0].blob = "broken";
  const Result<FitJob::Output> fitted = RunFit(job, control_);
  ASSERT_FALSE(fitted.ok());
  EXPECT_NE(fitted.status().message().find("broken"), std::string::npos) << fitted.status();
}

}  // namespace
}  // namespace weft
