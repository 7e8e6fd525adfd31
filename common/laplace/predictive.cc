#include "common/laplace/predictive.h"

#include <numbers>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/tensor/guard.h"

// Shape legend: N examples, C classes, S draws, O out, I in, K eigenvalues of G, L of A.

namespace weft {
namespace {

Status CheckJacobian(const KroneckerBlock& block, const at::Tensor& J, const at::Tensor& first) {
  if (J.dim() == 4 && J.size(2) == block.out() && J.size(3) == block.in() &&
      J.size(0) == first.size(0) && J.size(1) == first.size(1)) {
    return OkStatus();
  }
  return InvalidArgument(Str("[laplace] Jacobian of ", block.name, " is ", J.sizes(),
                             ", wanted [examples, classes, ", block.out(), ", ", block.in(), "]"));
}

at::Tensor Products(const at::Tensor& x_NCP, const at::Tensor& y_NCP) {
  return at::bmm(x_NCP, y_NCP.transpose(1, 2));
}

at::Tensor BlockCovariance(const KroneckerBlock& block, double precision,
                           const at::Tensor& J_NCOI) {
  const at::Tensor J = J_NCOI.detach().to(at::kDouble);
  const at::Tensor projected_NCKL =
      at::matmul(at::matmul(block.output.vectors_DK.t(), J), block.input.vectors_DK);
  const at::Tensor coordinates_NCP = projected_NCKL.flatten(2);
  const at::Tensor spread_P = (block.Curvature() + precision).flatten();
  at::Tensor covariance_NCC = Products(coordinates_NCP / spread_P, coordinates_NCP);
  if (block.output.complete() && block.input.complete()) return covariance_NCC;
  const at::Tensor whole_NCP = J.flatten(2);
  const at::Tensor rest_NCC =
      Products(whole_NCP, whole_NCP) - Products(coordinates_NCP, coordinates_NCP);
  return covariance_NCC.add_(rest_NCC, 1 / precision);
}

Status CheckNormal(const at::Tensor& mean_NC, const at::Tensor& covariance_NCC) {
  if (mean_NC.dim() == 2 && covariance_NCC.dim() == 3 &&
      covariance_NCC.size(0) == mean_NC.size(0) && covariance_NCC.size(1) == mean_NC.size(1) &&
      covariance_NCC.size(2) == mean_NC.size(1)) {
    return OkStatus();
  }
  return InvalidArgument(Str("[laplace] mean logits are ", mean_NC.sizes(), ", covariances ",
                             covariance_NCC.sizes(), ", wanted [N, C] and [N, C, C]"));
}

Result<at::Tensor> CholeskyRoots(const at::Tensor& covariance_NCC, double jitter) {
  const at::Tensor raised =
      covariance_NCC + jitter * at::eye(covariance_NCC.size(1), covariance_NCC.options());
  const auto [root_NCC, info_N] = at::linalg_cholesky_ex(raised);
  if (info_N.any().item<bool>()) {
    return Internal(Str("[laplace] covariance of row ",
                        (info_N != 0).to(at::kInt).argmax().item<int64_t>(), " plus jitter ",
                        jitter, " is not positive definite; use more jitter"));
  }
  return root_NCC;
}

// kernel: standard normals of one example [S×C]; they depend on seed and number alone, so on no
// batch size.
at::Tensor ExampleDraws(uint64_t seed, uint64_t example, int64_t samples, int64_t classes) {
  RandomStream stream = RandomStream::Derive(seed, {"laplace-predictive", Str(example)});
  at::Tensor draws_SC = at::empty({samples, classes}, at::kDouble);
  auto* const data = draws_SC.mutable_data_ptr<double>();
  for (int64_t i = 0; i < samples * classes; ++i) data[i] = stream.Normal();
  return draws_SC;
}

// The normal given that its logits add up to zero, which softmax cannot tell from it.
struct Normal {
  at::Tensor mean_NC;
  at::Tensor variance_NC;  // the diagonal only
};
Normal OnZeroSum(const at::Tensor& mean_NC, const at::Tensor& covariance_NCC) {
  const at::Tensor to_sum_NC = covariance_NCC.sum(2);
  const at::Tensor of_sum_N1 = to_sum_NC.sum(1, /*keepdim=*/true);
  return {mean_NC - to_sum_NC * mean_NC.sum(1, true) / of_sum_N1,
          covariance_NCC.diagonal(0, 1, 2) - to_sum_NC.square() / of_sum_N1};
}

}  // namespace

Result<at::Tensor> LogitCovariance(const LaplacePosterior& posterior,
                                   std::span<const double> precisions,
                                   std::span<const at::Tensor> jacobians_NCOI) {
  const std::vector<KroneckerBlock>& blocks = posterior.blocks;
  if (blocks.empty() || jacobians_NCOI.size() != blocks.size()) {
    return InvalidArgument(
        Str("[laplace] ", jacobians_NCOI.size(), " Jacobians for ", blocks.size(), " matrices"));
  }
  if (precisions.size() != 1 && precisions.size() != blocks.size()) {
    return InvalidArgument(
        Str("[laplace] ", precisions.size(), " prior precisions for ", blocks.size(), " matrices"));
  }
  const at::Tensor& first = jacobians_NCOI.front();
  for (size_t b = 0; b < blocks.size(); ++b) {
    WEFT_TRY(CheckJacobian(blocks[b], jacobians_NCOI[b], first));
  }
  return Guarded("[laplace]", [&]() -> Result<at::Tensor> {
    const at::NoGradGuard no_grad;
    at::Tensor sum_NCC = at::zeros({first.size(0), first.size(1), first.size(1)},
                                   first.options().dtype(at::kDouble));
    for (size_t b = 0; b < blocks.size(); ++b) {
      const double precision = precisions.size() == 1 ? precisions.front() : precisions[b];
      sum_NCC.add_(BlockCovariance(blocks[b], precision, jacobians_NCOI[b]));
    }
    return sum_NCC;
  });
}

Result<at::Tensor> MonteCarloProbabilities(const at::Tensor& mean_NC,
                                           const at::Tensor& covariance_NCC,
                                           const at::Tensor& draws_SNC, double jitter) {
  WEFT_TRY(CheckNormal(mean_NC, covariance_NCC));
  if (draws_SNC.dim() != 3 || draws_SNC.size(0) == 0 || draws_SNC.size(1) != mean_NC.size(0) ||
      draws_SNC.size(2) != mean_NC.size(1)) {
    return InvalidArgument(Str("[laplace] draws are ", draws_SNC.sizes(), " for mean logits ",
                               mean_NC.sizes(), ", wanted [S, N, C]"));
  }
  return Guarded("[laplace]", [&]() -> Result<at::Tensor> {
    const at::NoGradGuard no_grad;
    WEFT_TRY_ASSIGN(const at::Tensor root_NCC, CholeskyRoots(covariance_NCC, jitter));
    const at::Tensor noise_SNC = at::einsum("ncd,snd->snc", {root_NCC, draws_SNC});
    return at::softmax(mean_NC + noise_SNC, -1).mean(0);
  });
}

Result<at::Tensor> MonteCarloProbabilities(const at::Tensor& mean_NC,
                                           const at::Tensor& covariance_NCC,
                                           const MonteCarloSettings& settings) {
  WEFT_TRY(CheckNormal(mean_NC, covariance_NCC));
  if (settings.samples < 1) {
    return InvalidArgument(Str("[laplace] ", settings.samples, " samples, wanted at least 1"));
  }
  return Guarded("[laplace]", [&]() -> Result<at::Tensor> {
    const at::NoGradGuard no_grad;
    WEFT_TRY_ASSIGN(const at::Tensor root_NCC, CholeskyRoots(covariance_NCC, settings.jitter));
    at::Tensor probabilities_NC = at::empty_like(mean_NC);
    // Example by example: the draws of all of them together may not fit into memory.
    for (int64_t n = 0; n < mean_NC.size(0); ++n) {
      const at::Tensor draws_SC =
          ExampleDraws(settings.seed, settings.first_example + static_cast<uint64_t>(n),
                       settings.samples, mean_NC.size(1))
              .to(mean_NC.device());
      const at::Tensor logits_SC = at::addmm(mean_NC[n], draws_SC, root_NCC[n].t());
      probabilities_NC[n].copy_(at::softmax(logits_SC, -1).mean(0));
    }
    return probabilities_NC;
  });
}

at::Tensor ProbitProbabilities(const at::Tensor& mean_NC, const at::Tensor& covariance_NCC) {
  const at::Tensor variance_NC = covariance_NCC.diagonal(0, 1, 2);
  return at::softmax(mean_NC / at::sqrt(1 + variance_NC * (std::numbers::pi / 8)), -1);
}

at::Tensor BridgeDirichlet(const at::Tensor& mean_NC, const at::Tensor& covariance_NCC) {
  const Normal normal = OnZeroSum(mean_NC, covariance_NCC);
  const auto classes = static_cast<double>(mean_NC.size(1));
  const at::Tensor inverse_N1 = at::exp(-normal.mean_NC).sum(1, true);
  const at::Tensor ratio_NC = at::exp(normal.mean_NC) * inverse_N1 / (classes * classes);
  return (ratio_NC + (1 - 2 / classes)) / normal.variance_NC;
}

at::Tensor BridgeProbabilities(const at::Tensor& mean_NC, const at::Tensor& covariance_NCC) {
  const at::Tensor alpha_NC = BridgeDirichlet(mean_NC, covariance_NCC);
  return alpha_NC / alpha_NC.sum(1, true);
}

}  // namespace weft
