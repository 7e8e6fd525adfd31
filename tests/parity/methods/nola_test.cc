// golden/nola: the released code's three variants, and NOLA's part of golden/federation.

#include "common/adapters/nola.h"

#include <cmath>

#include <ATen/CPUGeneratorImpl.h>
#include <gtest/gtest.h>

#include "common/adapters/nola_merge.h"
#include "tests/parity/methods/golden_set.h"

// Shape legend: K bases, R rank, I in, O out, N rows of input.

namespace weft::testing {
namespace {

double Tolerance(const at::Tensor& like) {
  return like.scalar_type() == at::kDouble ? 1e-12 : 1e-5;
}

// Basis as the released code draws it: torch's own generator, seeded, fills one tensor.
void ExpectTorchBasis(GoldenSet& golden, const std::string& name, const std::string& seed_name) {
  const at::Tensor basis = golden.Get(name);
  at::Generator generator =
      at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(golden.Integer(seed_name)));
  golden.ExpectEqual(name, at::empty(basis.sizes(), basis.options()).uniform_(-1, 1, generator));
}

at::Tensor SumOf(const at::Tensor& coefficients_K, const at::Tensor& bases,
                 const at::Tensor& offset) {
  const at::Tensor offsets = offset.defined() ? offset.reshape({1, -1}) : at::Tensor();
  const at::Tensor sum = CombineBases(coefficients_K.unsqueeze(0), bases.flatten(1), offsets);
  return sum.view({bases.size(1), bases.size(2)});
}

void ExpectLanguageModelCase(GoldenSet& golden, const std::string& prefix) {
  const auto get = [&](const char* name) { return golden.Get(prefix + name); };
  at::Tensor x = get("x").clone().requires_grad_(true);
  at::Tensor alpha = get("coef_A").clone().requires_grad_(true);
  at::Tensor beta = get("coef_B").clone().requires_grad_(true);
  const double tolerance = Tolerance(alpha);
  ExpectTorchBasis(golden, prefix + "basis_A_uniform", prefix + "seed_A");
  ExpectTorchBasis(golden, prefix + "basis_B_uniform", prefix + "seed_B");
  const at::Tensor first_A = get("init_frozen_A");
  EXPECT_LE(first_A.abs().max().item<double>(),
            (1 + 1e-6) / std::sqrt(static_cast<double>(first_A.size(1))));
  const at::Tensor A_RI = SumOf(alpha, get("basis_A_uniform"), get("frozen_A"));
  const at::Tensor B_OR = SumOf(beta, get("basis_B_uniform"), get("frozen_B"));
  const double scale = golden.Number(prefix + "scale");
  const at::Tensor y = at::matmul(at::matmul(x, A_RI.t()), B_OR.t()) * scale;
  y.backward(get("dy"));
  golden.ExpectClose(prefix + "A_eff", A_RI.detach(), tolerance);
  golden.ExpectClose(prefix + "B_eff", B_OR.detach(), tolerance);
  golden.ExpectClose(prefix + "delta_W", (B_OR.mm(A_RI) * scale).detach(), tolerance);
  golden.ExpectClose(prefix + "y", y.detach(), tolerance);
  golden.ExpectClose(prefix + "grad_coef_A", alpha.grad(), tolerance);
  golden.ExpectClose(prefix + "grad_coef_B", beta.grad(), tolerance);
  golden.ExpectClose(prefix + "grad_x", x.grad(), tolerance);
}

// The vision variant lays weights out input-first, has no offsets and no 1/√k: its bases carry
// their bound. With coefficients times √k it is the same sum.
void ExpectVisionCase(GoldenSet& golden, const std::string& prefix) {
  const auto get = [&](const char* name) { return golden.Get(prefix + name); };
  at::Tensor x_NI = get("x").clone().requires_grad_(true);
  at::Tensor alpha = get("alpha").clone().requires_grad_(true);
  at::Tensor beta = get("beta").clone().requires_grad_(true);
  const double tolerance = Tolerance(alpha);
  const at::Tensor bases_A_KIR = get("basis_A"), bases_B_KRO = get("basis_B");
  for (const at::Tensor& bases : {bases_A_KIR, bases_B_KRO}) {
    const double fan = static_cast<double>(bases.size(1) * bases.size(2));
    EXPECT_LE(bases.abs().max().item<double>(), (1 + 1e-6) / std::sqrt(fan));
  }
  const auto ones_over = [](const at::Tensor& c) {
    return at::full_like(c, 1.0 / static_cast<double>(c.size(0)));
  };
  golden.ExpectClose(prefix + "init_alpha", ones_over(alpha.detach()), tolerance);
  golden.ExpectClose(prefix + "init_beta", ones_over(beta.detach()), tolerance);
  const auto sum = [](const at::Tensor& c, const at::Tensor& bases) {
    return SumOf(c * std::sqrt(static_cast<double>(c.size(0))), bases, {});
  };
  const double scale = golden.Number(prefix + "scale");
  const at::Tensor y = x_NI.matmul(sum(alpha, bases_A_KIR)).matmul(sum(beta, bases_B_KRO)) * scale;
  y.backward(get("dy"));
  golden.ExpectClose(prefix + "y", y.detach(), tolerance);
  golden.ExpectClose(prefix + "grad_alpha", alpha.grad(), tolerance);
  golden.ExpectClose(prefix + "grad_beta", beta.grad(), tolerance);
  golden.ExpectClose(prefix + "grad_x", x_NI.grad(), tolerance);
}

TEST(NolaParity, ForwardAndGradientsAreThoseOfTheReleasedCode) {
  GoldenSet golden("nola/nola.safetensors");
  for (const std::string& prefix : golden.Cases("dy")) {
    if (golden.Has(prefix + "coef_A")) {
      ExpectLanguageModelCase(golden, prefix);
    } else {
      ExpectVisionCase(golden, prefix);
    }
  }
  golden.ExpectAllUsed();
}

at::Tensor Product(const LowRank& factors) { return factors.B_OR.mm(factors.A_RI); }

TEST(FederationParity, NolaGammaIsTheExactMeanAndTheMeanOfCoefficientsIsNot) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  const std::vector<int64_t> k = golden.Integers("nola.k");
  ASSERT_EQ(golden.Count("nola.client"), static_cast<int64_t>(p.size()));
  ASSERT_EQ(k.size(), p.size());
  const NolaFrozen frozen{golden.Doubles("nola.basis_A"), golden.Doubles("nola.basis_B"),
                          golden.Doubles("nola.A0"), golden.Doubles("nola.B0")};
  const int64_t k_max = frozen.bases_A_KRI.size(0);
  std::vector<NolaCoefficients> clients;
  std::vector<at::Tensor> alphas, betas;
  for (size_t c = 0; c < p.size(); ++c) {
    const std::string client = "nola.client" + std::to_string(c) + ".";
    const NolaCoefficients own{golden.Doubles(client + "alpha", {k[c]}),
                               golden.Doubles(client + "beta", {k[c]})};
    clients.push_back(*PadNola(own, k_max));
    alphas.push_back(clients.back().alpha_K);
    betas.push_back(clients.back().beta_K);
  }
  constexpr double kTolerance = 1e-11;
  golden.ExpectClose("nola.alpha_padded", at::stack(alphas), kTolerance);
  golden.ExpectClose("nola.beta_padded", at::stack(betas), kTolerance);
  const at::Tensor gamma = *NolaGamma(clients, p);
  golden.ExpectClose("nola.Gamma", gamma, kTolerance);
  const double scale = golden.Number("nola.scale");
  const LowRank exact = NolaFactors(gamma, frozen, scale);
  EXPECT_LE(exact.A_RI.size(0), static_cast<int64_t>(p.size()) * frozen.offset_A_RI.size(0));
  golden.ExpectClose("nola.exact_mean_delta_W", Product(exact), kTolerance);
  NolaCoefficients mean{at::zeros_like(alphas[0]), at::zeros_like(betas[0])};
  for (size_t c = 0; c < p.size(); ++c) {
    mean.alpha_K = mean.alpha_K + alphas[c] * p[c];
    mean.beta_K = mean.beta_K + betas[c] * p[c];
  }
  const std::vector<NolaCoefficients> one = {mean};
  const std::vector<double> whole = {1.0};
  const at::Tensor naive = Product(NolaFactors(*NolaGamma(one, whole), frozen, scale));
  golden.ExpectClose("nola.naive_avg_delta_W", naive, kTolerance);
  golden.ExpectClose("nola.naive_error", Product(exact) - naive, kTolerance);
  golden.ExpectAllUsed("nola.");
}

}  // namespace
}  // namespace weft::testing
