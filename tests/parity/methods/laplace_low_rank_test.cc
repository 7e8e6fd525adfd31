// golden/laplace/bayesian_lora: numbers of the official bayesian_lora code (README there), float64,
// 1e-10 relative. Last token only, labels drawn once, large sides as roots, gradients of a batch's
// mean loss: Normalization::kBayesianLora. Roots are compared by their products with themselves:
// columns are free in sign, and in more where lengths are equal.
//
// Shape legend: N examples, T tokens, C classes, D elements of a side, Q columns of a root.

#include <algorithm>
#include <cmath>

#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/laplace/evidence.h"
#include "common/laplace/predictive.h"
#include "tests/parity/methods/golden_set.h"
#include "tests/parity/methods/toy_model.h"

namespace weft::testing {
namespace {

constexpr double kTolerance = 1e-10;
constexpr double kOfficialJitter = 1e-8;

/// One case of the file, and what is measured on it.
struct LowRankCase {
  GoldenSet& golden;
  std::string prefix;  // "lr."
  ToyModel model;
  LaplaceStatistics rooted;  // large sides as roots
  LaplaceStatistics whole;
  double variance = 1;  // s² of the prior

  [[nodiscard]] std::string Of(const std::string& name) const { return prefix + name; }
};

at::Tensor Square(const at::Tensor& root_DQ) { return at::matmul(root_DQ, root_DQ.t()); }

at::Tensor LogLikelihoods(const at::Tensor& logits_NC, const at::Tensor& labels_N) {
  return at::log_softmax(logits_NC, -1).gather(1, labels_N.unsqueeze(1)).squeeze(1);
}

void MeasureBatch(const ToyModel& model, const at::Tensor& ids_NT, const at::Tensor& drawn_N,
                  std::initializer_list<LaplaceStatistics*> all) {
  const ToyPass pass = Forward(model, ids_NT);
  const at::Tensor mean_loss = -LogLikelihoods(pass.logits_NC, drawn_N).mean();
  const std::vector<at::Tensor> gradients = OutputGradients(pass, mean_loss);
  for (LaplaceStatistics* statistics : all) {
    AddInputs(pass, /*last_only=*/true, *statistics);
    AddGradients(gradients, true, *statistics);
    statistics->examples += static_cast<uint64_t>(ids_NT.size(0));
    statistics->batches += 1;
  }
}

LowRankCase ReadCase(GoldenSet& golden, const std::string& prefix) {
  const ToyModel model = ReadToyModel(golden, prefix, "base");
  const int64_t threshold = golden.Integer(prefix + "lr_threshold");
  const int64_t rank = golden.Integer(prefix + "n_kfac");
  const int64_t batch = golden.Integer(prefix + "batch_size");
  const at::Tensor ids_NT = golden.Get(prefix + "input_ids");
  const at::Tensor labels_N = golden.Get(prefix + "labels");
  const at::Tensor drawn_N = golden.Get(prefix + "sampled_labels");
  if (batch < 1 || rank < 1 || ids_NT.dim() != 2) {
    throw GoldenError(
        Str(prefix, ": batches of ", batch, ", rank ", rank, ", input_ids ", ids_NT.sizes()));
  }
  LowRankCase read{golden,
                   prefix,
                   model,
                   EmptyStatistics(model, threshold, rank),
                   EmptyStatistics(model, 1 << 30, 1),
                   golden.Number(prefix + "s2")};
  for (int64_t begin = 0; begin < ids_NT.size(0); begin += batch) {
    const int64_t count = std::min(batch, ids_NT.size(0) - begin);
    MeasureBatch(model, ids_NT.narrow(0, begin, count), drawn_N.narrow(0, begin, count),
                 {&read.rooted, &read.whole});
  }
  const at::Tensor logits_NC = Forward(model, ids_NT).logits_NC.detach();
  read.rooted.log_likelihood = LogLikelihoods(logits_NC, labels_N).sum().item<double>();
  read.whole.log_likelihood = read.rooted.log_likelihood;
  golden.ExpectClose(prefix + "LL", read.rooted.log_likelihood, kTolerance);
  return read;
}

/// A stored root and its square against ours.
void ExpectRoot(GoldenSet& golden, const std::string& name, const Gram& got) {
  const at::Tensor root_DQ = golden.Doubles(name, {got.dim(), got.rank()});
  EXPECT_EQ(Difference(got.Matrix(), Square(root_DQ), kTolerance), "") << name;
}

/// One side of a matrix: as it was summed up, whole, and ready for M: a root, or the Cholesky
/// factor of what is small.
at::Tensor ExpectSide(const LowRankCase& at_hand, const std::string& side, const Gram& rooted,
                      const Gram& whole, const Gram& scaled) {
  GoldenSet& golden = at_hand.golden;
  const std::string factor = at_hand.Of("factor." + side);
  const auto batches = static_cast<double>(at_hand.rooted.batches);
  golden.ExpectClose(at_hand.Of("full." + side), whole.Matrix() / batches, kTolerance);
  if (rooted.whole()) {
    golden.ExpectClose(factor, rooted.Matrix() / batches, kTolerance);
    const at::Tensor lower = at::linalg_cholesky(scaled.Matrix());
    golden.ExpectClose(at_hand.Of("chol." + side), lower, kTolerance);
    return lower;
  }
  ExpectRoot(golden, factor, rooted);
  ExpectRoot(golden, at_hand.Of("chol." + side), scaled);
  golden.ExpectClose(factor + "_outer", rooted.Matrix(), kTolerance);
  return scaled.values();
}

// M = I + s² BᵀB ⊗ LᵀL, B the root of the large side, L the Cholesky factor of the small one.
at::Tensor SmallMatrix(const at::Tensor& input, const at::Tensor& output, int64_t lora_rank,
                       double variance) {
  const bool input_is_small = input.size(0) == lora_rank && input.size(1) == lora_rank;
  const at::Tensor& L = input_is_small ? input : output;
  const at::Tensor& B = input_is_small ? output : input;
  const at::Tensor product = at::kron(at::matmul(B.t(), B), at::matmul(L.t(), L));
  return at::eye(product.size(0), at::kDouble) + variance * product;
}

/// Compares the factors of every matrix; the largest extent of the last one's, which the official
/// evidence goes by.
int64_t ExpectFactors(const LowRankCase& at_hand) {
  int64_t largest = 0;
  for (size_t m = 0; m < at_hand.rooted.matrices.size(); ++m) {
    const MatrixStatistics& rooted = at_hand.rooted.matrices[m];
    const MatrixStatistics& whole = at_hand.whole.matrices[m];
    const ScaledFactors scaled = Scale(at_hand.rooted, rooted, Normalization::kBayesianLora);
    const at::Tensor input =
        ExpectSide(at_hand, rooted.name + ".A", rooted.input, whole.input, scaled.input);
    const at::Tensor output =
        ExpectSide(at_hand, rooted.name + ".S", rooted.output, whole.output, scaled.output);
    const int64_t lora_rank = at_hand.model.layers[m / 2].A.size(0);
    const at::Tensor M = SmallMatrix(input, output, lora_rank, at_hand.variance);
    at_hand.golden.ExpectClose(at_hand.Of("M." + rooted.name), M, kTolerance);
    largest = std::max({input.size(0), input.size(1), output.size(0), output.size(1)});
  }
  return largest;
}

// The released formula adds both penalties with the wrong sign, ‖W‖ unsquared, and takes
// r·d·log s² off once instead of once a matrix (methods.md, discrepancy 1). Ours is `correct`.
void ExpectEvidence(const LowRankCase& at_hand, const LaplacePosterior& posterior,
                    int64_t largest) {
  const double variance = at_hand.variance;
  const Result<Evidence> evidence = LogEvidence(posterior, std::vector<double>{1 / variance});
  ASSERT_TRUE(evidence.ok()) << evidence.status();
  GoldenSet& golden = at_hand.golden;
  golden.ExpectClose(at_hand.Of("sum_logdet_M"), evidence->log_det_ratio, kTolerance);
  golden.ExpectClose(at_hand.Of("correct.log_evidence"), evidence->log_marginal, kTolerance);
  double norms = 0;
  double slope = 0;  // of Σ log det M in s²
  for (const KroneckerBlock& block : posterior.blocks) {
    norms += std::sqrt(block.theta_square);
    const at::Tensor h = block.Curvature();
    slope += (h / (1 + variance * h)).sum().item<double>();
  }
  const auto counted =
      static_cast<double>(at_hand.model.layers.back().A.size(0) * largest);  // r·d, of one matrix
  golden.ExpectClose(at_hand.Of("official.model_evidence"),
                     posterior.log_likelihood + norms / variance +
                         0.5 * (evidence->log_det_ratio - counted * std::log(variance)),
                     kTolerance);
  golden.ExpectClose(at_hand.Of("official.d_evidence_d_s2"),
                     -norms / (variance * variance) + 0.5 * (slope - counted / variance),
                     kTolerance);
}

void ExpectPredictions(const LowRankCase& at_hand, const LaplacePosterior& posterior) {
  GoldenSet& golden = at_hand.golden;
  const at::Tensor ids_NT = golden.Get(at_hand.Of("test_input_ids"));
  golden.ExpectClose(at_hand.Of("test.f_mu"), Forward(at_hand.model, ids_NT).logits_NC, kTolerance);
  const std::vector<at::Tensor> jacobians = Jacobians(at_hand.model, ids_NT);
  const std::vector<std::string> names = at_hand.model.Matrices();
  std::vector<DenseBlock> dense;
  for (size_t m = 0; m < names.size(); ++m) {
    golden.ExpectClose(at_hand.Of("test.jacobian." + names[m] + ".weight"), jacobians[m],
                       kTolerance);
    const ScaledFactors scaled =
        Scale(at_hand.rooted, at_hand.rooted.matrices[m], Normalization::kBayesianLora);
    dense.push_back({scaled.output.Matrix(), scaled.input.Matrix()});
  }
  const double precision = 1 / at_hand.variance;
  const Result<at::Tensor> covariance =
      LogitCovariance(posterior, std::vector<double>{precision}, jacobians);
  ASSERT_TRUE(covariance.ok()) << covariance.status();
  golden.ExpectClose(at_hand.Of("test.f_var"), *covariance, kTolerance);
  golden.ExpectClose(at_hand.Of("test.f_var_dense_check"), *covariance, kTolerance);
  golden.ExpectClose(at_hand.Of("test.f_var_dense_check"),
                     DenseCovariance(dense, precision, jacobians), kTolerance);
  // The official Cholesky factors are those of matrices with raised diagonals.
  const at::Tensor raise_NC = covariance->diagonal(0, 1, 2) * kOfficialJitter + kOfficialJitter;
  golden.ExpectClose(at_hand.Of("test.chol_f_var"),
                     at::linalg_cholesky(*covariance + at::diag_embed(raise_NC)), kTolerance);
}

// One incremental step: the best root of A_in A_inᵀ + aᵀa.
void ExpectIncrementalStep(const LowRankCase& at_hand) {
  GoldenSet& golden = at_hand.golden;
  const at::Tensor before_DQ = golden.Doubles(at_hand.Of("incsvd.A_in"), {-1, -1});
  const int64_t dim = before_DQ.size(0);
  const at::Tensor rows_ND = golden.Doubles(at_hand.Of("incsvd.a"), {-1, dim});
  const at::Tensor after_DQ = golden.Doubles(at_hand.Of("incsvd.B_out"), {dim, -1});
  golden.ExpectClose(at_hand.Of("incsvd.BBt"), Square(after_DQ), kTolerance);
  const Result<Gram> before = Gram::From(before_DQ, dim, /*whole=*/false);
  const Result<Gram> added = Gram::From(rows_ND.t(), dim, /*whole=*/false);
  ASSERT_TRUE(before.ok()) << before.status();
  ASSERT_TRUE(added.ok()) << added.status();
  const Gram sum = Gram::Sum(std::vector<const Gram*>{&*before, &*added}, after_DQ.size(1));
  golden.ExpectClose(at_hand.Of("incsvd.BBt"), sum.Matrix(), kTolerance);
  if (before_DQ.size(1) != after_DQ.size(1)) return;
  Gram stepped = *before;
  stepped.Add(rows_ND);
  golden.ExpectClose(at_hand.Of("incsvd.BBt"), stepped.Matrix(), kTolerance);
}

TEST(LaplaceParity, RootsEvidenceAndPredictionsAreThoseOfBayesianLora) {
  GoldenSet golden("laplace/bayesian_lora.safetensors");
  for (const std::string& prefix : golden.Cases("input_ids")) {
    SCOPED_TRACE(prefix);
    const LowRankCase at_hand = ReadCase(golden, prefix);
    const int64_t largest = ExpectFactors(at_hand);
    const Result<LaplacePosterior> posterior =
        MakePosterior(at_hand.rooted, at_hand.model.Theta(), Normalization::kBayesianLora);
    ASSERT_TRUE(posterior.ok()) << posterior.status();
    ExpectEvidence(at_hand, *posterior, largest);
    ExpectPredictions(at_hand, *posterior);
    ExpectIncrementalStep(at_hand);
  }
  golden.ExpectAllUsed();
}

}  // namespace
}  // namespace weft::testing
