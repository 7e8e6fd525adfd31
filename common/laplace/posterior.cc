#include "common/laplace/posterior.h"

#include "common/base/str.h"
#include "common/tensor/guard.h"

// Shape legend: O out, I in, D elements of a side, K eigenvalues of G, L eigenvalues of A.

namespace weft {
namespace {

// bayesian_lora's stable_cholesky raises the diagonal by this share of itself and this much more.
constexpr double kOfficialJitter = 1e-8;

Gram BayesianLoraFactor(const Gram& gram, double batches) {
  if (!gram.whole()) return gram;
  return gram.Times(1 / batches).WithRaisedDiagonal(kOfficialJitter, kOfficialJitter);
}

Status CheckTheta(const at::Tensor& theta_OI, const MatrixStatistics& matrix) {
  if (theta_OI.dim() != 2 || theta_OI.size(0) != matrix.output.dim() ||
      theta_OI.size(1) != matrix.input.dim()) {
    return InvalidArgument(Str("[laplace] matrix ", matrix.name, " is ", theta_OI.sizes(),
                               ", measured were [", matrix.output.dim(), ", ", matrix.input.dim(),
                               "]"));
  }
  if (!at::isfinite(theta_OI).all().item<bool>()) {
    return InvalidArgument(Str("[laplace] matrix ", matrix.name, " is not finite"));
  }
  return OkStatus();
}

}  // namespace

std::string_view NormalizationName(Normalization normalization) {
  switch (normalization) {
    case Normalization::kTokenRows:
      return "token-rows";
    case Normalization::kLaplaceLora:
      return "laplace-lora";
    case Normalization::kBayesianLora:
      return "bayesian-lora";
  }
  return "";
}

at::Tensor KroneckerBlock::Curvature() const { return at::outer(output.values_K, input.values_K); }

ScaledFactors Scale(const LaplaceStatistics& statistics, const MatrixStatistics& matrix,
                    Normalization normalization) {
  switch (normalization) {
    case Normalization::kTokenRows:
      // T · (S_G / T) ⊗ (S_A / T).
      return {matrix.input.Times(1 / static_cast<double>(matrix.rows)), matrix.output};
    case Normalization::kLaplaceLora:
      return {matrix.input.Times(1 / static_cast<double>(statistics.examples)), matrix.output};
    case Normalization::kBayesianLora:
      break;
  }
  const auto batches = static_cast<double>(statistics.batches);
  return {BayesianLoraFactor(matrix.input, batches), BayesianLoraFactor(matrix.output, batches)};
}

Result<LaplacePosterior> MakePosterior(const LaplaceStatistics& statistics,
                                       std::span<const at::Tensor> theta,
                                       Normalization normalization) {
  WEFT_TRY(CheckStatistics(statistics).Within("[laplace]"));
  if (theta.size() != statistics.matrices.size()) {
    return InvalidArgument(Str("[laplace] ", theta.size(),
                               " matrices of the adapter, measured were ",
                               statistics.matrices.size()));
  }
  if (normalization == Normalization::kBayesianLora && statistics.batches == 0) {
    return InvalidArgument("[laplace] bayesian-lora divides by the number of batches, which is 0");
  }
  return Guarded("[laplace]", [&]() -> Result<LaplacePosterior> {
    const at::NoGradGuard no_grad;
    LaplacePosterior posterior{statistics.adapter_hash, statistics.log_likelihood, {}};
    for (size_t m = 0; m < theta.size(); ++m) {
      const MatrixStatistics& matrix = statistics.matrices[m];
      WEFT_TRY(CheckTheta(theta[m], matrix));
      const ScaledFactors scaled = Scale(statistics, matrix, normalization);
      posterior.blocks.push_back({matrix.name, scaled.output.Decompose(), scaled.input.Decompose(),
                                  theta[m].to(at::kDouble).square().sum().item<double>()});
    }
    return posterior;
  });
}

}  // namespace weft
