// golden/laplace/laplace_lora: numbers of the official laplace-lora code (README there), float64,
// 1e-10 relative. Exact Fisher over all classes, sums over all tokens, A divided by the number of
// examples: Normalization::kLaplaceLora.
//
// Shape legend: N examples, T tokens, C classes, P parameters, S draws.

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/laplace/evidence.h"
#include "common/laplace/predictive.h"
#include "tests/parity/methods/golden_set.h"
#include "tests/parity/methods/toy_model.h"

namespace weft::testing {
namespace {

constexpr double kTolerance = 1e-10;
constexpr double kOfficialJitter = 1e-6;  // of the Monte-Carlo covariances

/// One case of the file.
struct LaplaceCase {
  GoldenSet& golden;
  std::string prefix;  // "seq."
  ToyModel model;
  at::Tensor ids_NT;
  at::Tensor labels_N;

  [[nodiscard]] std::string Of(const std::string& name) const { return prefix + name; }
};

LaplaceCase ReadCase(GoldenSet& golden, const std::string& prefix) {
  LaplaceCase read{golden, prefix, ReadToyModel(golden, prefix, "linear"),
                   golden.Get(prefix + "input_ids"), golden.Get(prefix + "labels")};
  if (read.ids_NT.dim() != 2 || read.labels_N.dim() != 1 ||
      read.ids_NT.size(0) != read.labels_N.size(0)) {
    throw GoldenError(
        Str(prefix, "input_ids are ", read.ids_NT.sizes(), ", labels ", read.labels_N.sizes()));
  }
  return read;
}

at::Tensor LabelLogLikelihood(const at::Tensor& logits_NC, const at::Tensor& labels_N) {
  return at::log_softmax(logits_NC, -1).gather(1, labels_N.unsqueeze(1)).sum();
}

// Σ_c p_c g_c g_cᵀ of g_c = ∂(−log p_c)/∂(layer output), by one backward pass a class.
LaplaceStatistics Measure(const ToyModel& model, const at::Tensor& ids_NT,
                          const at::Tensor& labels_N) {
  LaplaceStatistics statistics = EmptyStatistics(model, /*root_from=*/1 << 30, 1);
  statistics.adapter_hash = "theta";
  statistics.examples = static_cast<uint64_t>(ids_NT.size(0));
  statistics.batches = 1;
  const ToyPass first = Forward(model, ids_NT);
  AddInputs(first, /*last_only=*/false, statistics);
  statistics.log_likelihood = LabelLogLikelihood(first.logits_NC.detach(), labels_N).item<double>();
  for (int64_t c = 0; c < first.logits_NC.size(1); ++c) {
    const ToyPass pass = Forward(model, ids_NT);
    const at::Tensor log_p_N = at::log_softmax(pass.logits_NC, -1).select(1, c);
    const at::Tensor weights_N = log_p_N.detach().exp().sqrt();
    AddGradients(OutputGradients(pass, -(weights_N * log_p_N).sum()), false, statistics);
  }
  return statistics;
}

void ExpectFactors(const LaplaceCase& at_hand, const LaplaceStatistics& statistics,
                   const std::string& group, const std::string& mean_input) {
  for (const MatrixStatistics& matrix : statistics.matrices) {
    const std::string stem = at_hand.Of(group + "." + matrix.name + ".weight.");
    const ScaledFactors scaled = Scale(statistics, matrix, Normalization::kLaplaceLora);
    at_hand.golden.ExpectClose(stem + "G", scaled.output.Matrix(), kTolerance);
    at_hand.golden.ExpectClose(stem + mean_input, scaled.input.Matrix(), kTolerance);
  }
}

// The clients' sums are those of disjoint parts of the data, and add up to the whole.
void ExpectClientsAddUp(const LaplaceCase& at_hand) {
  const std::vector<int64_t> counts = at_hand.golden.Integers(at_hand.Of("clients.n"));
  ASSERT_EQ(at_hand.golden.Count(at_hand.Of("client")), static_cast<int64_t>(counts.size()));
  std::vector<LaplaceStatistics> measured;
  int64_t begin = 0;
  for (const int64_t count : counts) {
    measured.push_back(Measure(at_hand.model, at_hand.ids_NT.narrow(0, begin, count),
                               at_hand.labels_N.narrow(0, begin, count)));
    ExpectFactors(at_hand, measured.back(), Str("client", measured.size() - 1), "A_over_n");
    begin += count;
  }
  ASSERT_EQ(begin, at_hand.ids_NT.size(0));
  std::vector<ClientStatistics> clients;
  for (size_t k = 0; k < measured.size(); ++k) clients.push_back({Str("c", k), &measured[k]});
  const Result<LaplaceStatistics> merged = MergeStatistics(clients);
  ASSERT_TRUE(merged.ok()) << merged.status();
  ExpectFactors(at_hand, *merged, "kron", "A_over_N");
  at_hand.golden.ExpectClose(at_hand.Of("log_likelihood"), merged->log_likelihood, kTolerance);
}

double Sum(const std::vector<double>& values) {
  double sum = 0;
  for (const double value : values) sum += value;
  return sum;
}

void ExpectEvidence(const LaplaceCase& at_hand, const LaplacePosterior& posterior) {
  GoldenSet& golden = at_hand.golden;
  std::vector<double> log_marginal;
  std::vector<double> log_det_ratio;
  std::vector<double> scatter;
  std::vector<double> gradient;
  for (const double precision : golden.Numbers(at_hand.Of("grid.prior_precision"))) {
    const Result<Evidence> evidence = LogEvidence(posterior, std::vector<double>{precision});
    ASSERT_TRUE(evidence.ok()) << evidence.status();
    log_marginal.push_back(evidence->log_marginal);
    log_det_ratio.push_back(evidence->log_det_ratio);
    scatter.push_back(evidence->scatter);
    gradient.push_back(Sum(evidence->gradient));
  }
  const auto expect = [&](const std::string& name, const std::vector<double>& got) {
    golden.ExpectClose(at_hand.Of(name), at::tensor(got, at::kDouble), kTolerance);
  };
  expect("grid.log_marglik", log_marginal);
  expect("grid.log_det_ratio", log_det_ratio);
  expect("grid.scatter", scatter);
  expect("grid.grad_wrt_log_prior", gradient);
  const Result<Evidence> each =
      LogEvidence(posterior, golden.Numbers(at_hand.Of("perlayer.prior_precision")));
  ASSERT_TRUE(each.ok()) << each.status();
  golden.ExpectClose(at_hand.Of("perlayer.log_marglik"), each->log_marginal, kTolerance);
  expect("perlayer.grad_wrt_log_prior", each->gradient);
}

// The number of Adam's steps stands in the tensor's name.
double ExpectFittedPrior(const LaplaceCase& at_hand, const LaplacePosterior& posterior) {
  const std::string stem = at_hand.Of("opt.prior_precision_");
  const std::vector<std::string> steps = at_hand.golden.Between(stem, "steps");
  if (steps.size() != 1) throw GoldenError(Str(stem, "<n>steps: ", steps.size(), " tensors"));
  const Result<PriorFit> adam =
      FitPriorByAdam(posterior, PriorSharing::kOne, {.steps = std::stoi(steps.front())});
  const Result<PriorFit> newton = FitPrior(posterior, PriorSharing::kOne);
  EXPECT_TRUE(adam.ok()) << adam.status();
  EXPECT_TRUE(newton.ok()) << newton.status();
  at_hand.golden.ExpectClose(stem + steps.front() + "steps", adam->precisions.front(), kTolerance);
  at_hand.golden.ExpectClose(at_hand.Of("opt.log_marglik"), adam->log_marginal, kTolerance);
  EXPECT_GE(newton->log_marginal, adam->log_marginal);
  return adam->precisions.front();
}

void ExpectPredictions(const LaplaceCase& at_hand, const LaplaceStatistics& statistics,
                       const LaplacePosterior& posterior, double precision) {
  GoldenSet& golden = at_hand.golden;
  const at::Tensor ids_NT = golden.Get(at_hand.Of("test_input_ids"));
  const at::Tensor mean_NC = Forward(at_hand.model, ids_NT).logits_NC.detach();
  golden.ExpectClose(at_hand.Of("test.f_mu"), mean_NC, kTolerance);
  const std::vector<at::Tensor> jacobians = Jacobians(at_hand.model, ids_NT);
  std::vector<at::Tensor> flat;
  std::vector<DenseBlock> dense;
  for (size_t m = 0; m < jacobians.size(); ++m) {
    flat.push_back(jacobians[m].flatten(2));
    const ScaledFactors scaled =
        Scale(statistics, statistics.matrices[m], Normalization::kLaplaceLora);
    dense.push_back({scaled.output.Matrix(), scaled.input.Matrix()});
  }
  golden.ExpectClose(at_hand.Of("test.jacobian"), at::cat(flat, 2), kTolerance);
  const Result<at::Tensor> covariance =
      LogitCovariance(posterior, std::vector<double>{precision}, jacobians);
  ASSERT_TRUE(covariance.ok()) << covariance.status();
  golden.ExpectClose(at_hand.Of("test.f_var"), *covariance, kTolerance);
  golden.ExpectClose(at_hand.Of("test.f_var_dense_check"), *covariance, kTolerance);
  golden.ExpectClose(at_hand.Of("test.f_var_dense_check"),
                     DenseCovariance(dense, precision, jacobians), kTolerance);
  golden.ExpectClose(at_hand.Of("test.probs_map"), at::softmax(mean_NC, -1), kTolerance);
  golden.ExpectClose(at_hand.Of("test.probs_probit"), ProbitProbabilities(mean_NC, *covariance),
                     kTolerance);
  const Result<at::Tensor> sampled = MonteCarloProbabilities(
      mean_NC, *covariance, golden.Doubles(at_hand.Of("test.mc_eps")), kOfficialJitter);
  ASSERT_TRUE(sampled.ok()) << sampled.status();
  golden.ExpectClose(at_hand.Of("test.probs_mc"), *sampled, kTolerance);
}

void ExpectCase(GoldenSet& golden, const std::string& prefix) {
  const LaplaceCase at_hand = ReadCase(golden, prefix);
  const std::vector<at::Tensor> theta = at_hand.model.Theta();
  std::vector<at::Tensor> flat;
  for (const at::Tensor& matrix : theta) flat.push_back(matrix.flatten());
  golden.ExpectEqual(at_hand.Of("theta_map"), at::cat(flat));
  golden.ExpectEqual(at_hand.Of("emb"), at_hand.model.embedding);

  const LaplaceStatistics statistics = Measure(at_hand.model, at_hand.ids_NT, at_hand.labels_N);
  ExpectFactors(at_hand, statistics, "kron", "A_over_N");
  golden.ExpectClose(at_hand.Of("log_likelihood"), statistics.log_likelihood, kTolerance);
  golden.ExpectClose(at_hand.Of("sum_ce"), -statistics.log_likelihood, kTolerance);
  ExpectClientsAddUp(at_hand);

  const Result<LaplacePosterior> posterior =
      MakePosterior(statistics, theta, Normalization::kLaplaceLora);
  ASSERT_TRUE(posterior.ok()) << posterior.status();
  ExpectEvidence(at_hand, *posterior);
  const double precision = ExpectFittedPrior(at_hand, *posterior);
  ExpectPredictions(at_hand, statistics, *posterior, precision);
}

TEST(LaplaceParity, FactorsEvidenceAndPredictionsAreThoseOfLaplaceLora) {
  GoldenSet golden("laplace/laplace_lora.safetensors");
  for (const std::string& prefix : golden.Cases("input_ids")) {
    SCOPED_TRACE(prefix);
    ExpectCase(golden, prefix);
  }
  golden.ExpectAllUsed();
}

}  // namespace
}  // namespace weft::testing
