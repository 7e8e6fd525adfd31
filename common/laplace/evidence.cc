#include "common/laplace/evidence.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "common/base/str.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

/// What one block adds at a precision.
struct Term {
  double log_det_ratio = 0;
  double scatter = 0;
  double gradient = 0;  // of −½(ratio + scatter) in u = log λ
  double bend = 0;      // its derivative
};

// With h = g_k a_l: d/du log(1 + h/λ) = −h/(h + λ), and −hλ/(h + λ)² is minus its derivative.
Term TermOf(const at::Tensor& curvature, double theta_square, double precision) {
  const at::Tensor share = curvature / (curvature + precision);
  Term term;
  term.log_det_ratio = at::log1p(curvature / precision).sum().item<double>();
  term.scatter = precision * theta_square;
  term.gradient = 0.5 * (share.sum().item<double>() - term.scatter);
  term.bend = -0.5 * ((share * (1 - share)).sum().item<double>() + term.scatter);
  return term;
}

Result<std::vector<double>> ForBlocks(const LaplacePosterior& posterior,
                                      std::span<const double> precisions) {
  if (precisions.size() != 1 && precisions.size() != posterior.blocks.size()) {
    return InvalidArgument(Str("[laplace] ", precisions.size(), " prior precisions for ",
                               posterior.blocks.size(), " matrices"));
  }
  for (const double precision : precisions) {
    if (!(precision > 0) || !std::isfinite(precision)) {
      return InvalidArgument(Str("[laplace] prior precision ", precision, ", wanted above 0"));
    }
  }
  if (precisions.size() > 1) return std::vector<double>(precisions.begin(), precisions.end());
  return std::vector<double>(posterior.blocks.size(), precisions.front());
}

/// Blocks that share one λ, as one: their eigenvalues side by side.
struct Pool {
  at::Tensor curvature;
  double theta_square = 0;
};

std::vector<Pool> PoolsOf(const LaplacePosterior& posterior, PriorSharing sharing) {
  std::vector<Pool> pools;
  for (const KroneckerBlock& block : posterior.blocks) {
    pools.push_back({block.Curvature().flatten(), block.theta_square});
  }
  if (sharing == PriorSharing::kPerMatrix || pools.size() < 2) return pools;
  Pool all;
  std::vector<at::Tensor> values;
  for (const Pool& pool : pools) {
    values.push_back(pool.curvature);
    all.theta_square += pool.theta_square;
  }
  all.curvature = at::cat(values);
  return {all};
}

struct Maximum {
  double precision = 1;
  int steps = 0;
};

// The zero of the falling gradient. A Newton step that leaves the bracket is replaced by halving
// it.
Maximum NewtonMaximum(const Pool& pool) {
  constexpr int kStepsMax = 200;
  constexpr double kConverged = 1e-12;  // of log λ; a further step would be rounding
  double low = std::log(kLeastPrecision);
  double high = std::log(kLargestPrecision);
  if (TermOf(pool.curvature, pool.theta_square, kLeastPrecision).gradient <= 0) {
    return {kLeastPrecision, 0};
  }
  if (TermOf(pool.curvature, pool.theta_square, kLargestPrecision).gradient >= 0) {
    return {kLargestPrecision, 0};
  }
  double u = 0;
  for (int step = 1; step <= kStepsMax; ++step) {
    const Term term = TermOf(pool.curvature, pool.theta_square, std::exp(u));
    const double newton = -term.gradient / term.bend;
    if (std::abs(newton) < kConverged) return {std::exp(u + newton), step};
    (term.gradient > 0 ? low : high) = u;
    u += newton;
    if (!(u > low && u < high)) u = (low + high) / 2;
  }
  return {std::exp(u), kStepsMax};
}

double AdamPrecision(const Pool& pool, const AdamSettings& settings) {
  constexpr double kBeta1 = 0.9;
  constexpr double kBeta2 = 0.999;
  constexpr double kEpsilon = 1e-8;
  double u = std::log(settings.start);
  double mean = 0;
  double square = 0;
  for (int step = 1; step <= settings.steps; ++step) {
    const double gradient = -TermOf(pool.curvature, pool.theta_square, std::exp(u)).gradient;
    mean = kBeta1 * mean + (1 - kBeta1) * gradient;
    square = kBeta2 * square + (1 - kBeta2) * gradient * gradient;
    const double unbiased_mean = mean / (1 - std::pow(kBeta1, step));
    const double unbiased_square = square / (1 - std::pow(kBeta2, step));
    u -= settings.learning_rate * unbiased_mean / (std::sqrt(unbiased_square) + kEpsilon);
  }
  return std::exp(u);
}

Result<PriorFit> FitEach(const LaplacePosterior& posterior, PriorSharing sharing,
                         const std::function<Maximum(const Pool&)>& fit) {
  if (posterior.blocks.empty()) return InvalidArgument("[laplace] the posterior has no matrix");
  return Guarded("[laplace]", [&]() -> Result<PriorFit> {
    PriorFit result;
    for (const Pool& pool : PoolsOf(posterior, sharing)) {
      const Maximum maximum = fit(pool);
      result.precisions.push_back(maximum.precision);
      result.steps = std::max(result.steps, maximum.steps);
    }
    WEFT_TRY_ASSIGN(result.precisions, ForBlocks(posterior, result.precisions));
    WEFT_TRY_ASSIGN(const Evidence evidence, LogEvidence(posterior, result.precisions));
    result.log_marginal = evidence.log_marginal;
    return result;
  });
}

}  // namespace

Result<Evidence> LogEvidence(const LaplacePosterior& posterior,
                             std::span<const double> precisions) {
  WEFT_TRY_ASSIGN(const std::vector<double> each, ForBlocks(posterior, precisions));
  return Guarded("[laplace]", [&]() -> Result<Evidence> {
    Evidence evidence;
    for (size_t b = 0; b < each.size(); ++b) {
      const KroneckerBlock& block = posterior.blocks[b];
      const Term term = TermOf(block.Curvature(), block.theta_square, each[b]);
      evidence.log_det_ratio += term.log_det_ratio;
      evidence.scatter += term.scatter;
      evidence.gradient.push_back(term.gradient);
      evidence.bend.push_back(term.bend);
    }
    evidence.log_marginal =
        posterior.log_likelihood - 0.5 * (evidence.log_det_ratio + evidence.scatter);
    return evidence;
  });
}

Result<PriorFit> FitPrior(const LaplacePosterior& posterior, PriorSharing sharing) {
  return FitEach(posterior, sharing, NewtonMaximum);
}

Result<PriorFit> FitPriorByAdam(const LaplacePosterior& posterior, PriorSharing sharing,
                                const AdamSettings& settings) {
  if (!(settings.start > 0) || settings.steps < 0 || !(settings.learning_rate > 0)) {
    return InvalidArgument(Str("[laplace] Adam from precision ", settings.start, ", ",
                               settings.steps, " steps of rate ", settings.learning_rate,
                               ": all must be positive"));
  }
  return FitEach(posterior, sharing, [&](const Pool& pool) {
    return Maximum{AdamPrecision(pool, settings), settings.steps};
  });
}

}  // namespace weft
