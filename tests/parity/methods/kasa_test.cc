// golden/kasa: the official code's truncation, forward pass, merge and regularisers, and the
// paper's; and the kasa.* part of golden/federation. READMEs there.
//
// Shape legend: R rank, I in, O out, N rows of input.

#include "common/adapters/kasa.h"

#include <charconv>

#include <gtest/gtest.h>

#include "common/adapters/kasa_merge.h"
#include "common/adapters/singular_form.h"
#include "tests/parity/methods/golden_set.h"

namespace weft::testing {
namespace {

// The official SVD runs in float32, and so does everything that is stored in it.
constexpr double kFloatTolerance = 1e-5;
constexpr double kTolerance = 1e-10;
constexpr double kFederationTolerance = 1e-11;

std::string Exactly(double number) {
  char text[64];
  const auto [end, error] = std::to_chars(std::begin(text), std::end(text), number);
  WEFT_CHECK(error == std::errc(), number);
  return {std::begin(text), end};
}

void ExpectStored(GoldenSet& golden, const std::string& name, const at::Tensor& got) {
  const bool is_float = golden.Get(name).scalar_type() == at::kFloat;
  golden.ExpectClose(name, got, is_float ? kFloatTolerance : kTolerance);
}

void ExpectStored(GoldenSet& golden, const std::string& name, double got) {
  const bool is_float = golden.Get(name).scalar_type() == at::kFloat;
  golden.ExpectClose(name, got, is_float ? kFloatTolerance : kTolerance);
}

struct KasaCase {
  std::string prefix;  // "f64."
  std::vector<std::string> modules;
  AdapterSpec spec;
  AdapterState state;  // float64, its tensors are leaves
};

KasaCase ReadCase(GoldenSet& golden, const std::string& prefix) {
  KasaCase at_hand{prefix, golden.Between(prefix, ".W_original"), {}, {}};
  if (at_hand.modules.empty()) throw GoldenError(prefix + ": no module");
  AdapterSpec& spec = at_hand.spec;
  spec.method = "kasa";
  const std::vector<double> beta_gamma = golden.Numbers(prefix + "beta_gamma");
  if (beta_gamma.size() != 2) throw GoldenError(prefix + "beta_gamma: wanted two numbers");
  spec.options = {{"kasa.beta", Exactly(beta_gamma[0])}, {"kasa.gamma", Exactly(beta_gamma[1])}};
  for (const std::string& module : at_hand.modules) {
    const std::string stem = prefix + module;
    const at::Tensor W_OI = golden.Doubles(stem + ".W_original", {-1, -1});
    const LinearSite site{"layers.0." + module, W_OI.size(1), W_OI.size(0)};
    const at::Tensor A_RI = golden.Doubles(stem + ".A", {-1, site.in});
    const int64_t rank = A_RI.size(0);
    at_hand.state.sites.push_back(
        {site,
         {{"A", A_RI.requires_grad_(true)},
          {"B", golden.Doubles(stem + ".B", {site.out, rank}).requires_grad_(true)},
          {"sigma", golden.Doubles(stem + ".diag", {rank}).requires_grad_(true)}}});
    spec.rank_pattern.emplace_back(site.path, rank);
    spec.alpha_pattern.emplace_back(site.path,
                                    golden.Number(stem + ".scaling") * static_cast<double>(rank));
  }
  at_hand.state.spec = spec;
  return at_hand;
}

AdapterSpec With(AdapterSpec spec, const std::string& option, const std::string& value) {
  std::erase_if(spec.options, [&](const auto& old) { return old.first == option; });
  spec.options.emplace_back(option, value);
  return spec;
}

// W as BaseChange leaves it, in float32 as the whole of it.
at::Tensor Truncated(const AdapterSpec& spec, const LinearSite& site, const at::Tensor& W_OI) {
  const WeightOf weight = [&](const LinearSite&) -> Result<at::Tensor> {
    return W_OI.to(at::kFloat);
  };
  const Result<std::optional<LowRankAdapter>> change =
      KasaAdapter()->BaseChange(spec, std::span(&site, 1), weight);
  WEFT_CHECK(change.ok(), change.status());
  if (!change->has_value()) return W_OI;
  const LowRank& factors = (**change)[0].factors;
  return W_OI + at::matmul(factors.B_OR, factors.A_RI);
}

void ExpectTruncation(GoldenSet& golden, const KasaCase& at_hand, size_t m) {
  const std::string stem = at_hand.prefix + at_hand.modules[m] + ".";
  const LinearSite& site = at_hand.state.sites[m].site;
  const at::Tensor W_OI = golden.Doubles(stem + "W_original");
  const AdapterSpec official = With(at_hand.spec, "kasa.mode", "official");
  EXPECT_EQ(RemovedComponents(official, site).value(), golden.Integer(stem + "n_removed")) << stem;
  golden.ExpectClose(stem + "W_truncated", Truncated(official, site, W_OI), kFloatTolerance);
  golden.ExpectClose(stem + "W_truncated_paper", Truncated(at_hand.spec, site, W_OI),
                     kFloatTolerance);
  const int64_t removed = RemovedComponents(at_hand.spec, site).value();
  const LowRank smallest = SmallestComponents(W_OI, removed);
  golden.ExpectClose(stem + "W_truncated_paper", W_OI - at::matmul(smallest.B_OR, smallest.A_RI),
                     kTolerance);
  const SingularForm whole = SingularFormOf({W_OI, at::eye(site.out, at::kDouble)});
  golden.ExpectClose(stem + "singular_values", whole.S_Q, kFloatTolerance);
}

void ExpectForward(GoldenSet& golden, KasaCase& at_hand, size_t m) {
  const std::string stem = at_hand.prefix + at_hand.modules[m] + ".";
  SiteState& site = at_hand.state.sites[m];
  const at::Tensor base_OI = golden.Doubles(stem + "W_truncated");
  const LowRank factors = KasaAdapter()->Effective(at_hand.state, m);
  const at::Tensor delta_OI = at::matmul(factors.B_OR, factors.A_RI);
  ExpectStored(golden, stem + "delta_W", delta_OI);
  ExpectStored(golden, stem + "W_merged", base_OI + delta_OI);
  const at::Tensor x_NI = golden.Doubles(stem + "x").requires_grad_(true);
  const at::Tensor y_NO = at::matmul(x_NI, base_OI.t()) + golden.Doubles(stem + "bias") +
                          at::matmul(at::matmul(x_NI, factors.A_RI.t()), factors.B_OR.t());
  ExpectStored(golden, stem + "y", y_NO);
  (y_NO * golden.Doubles(stem + "dy")).sum().backward();
  ExpectStored(golden, stem + "grad_x", x_NI.grad());
  ExpectStored(golden, stem + "grad_A", site.Get("A").grad());
  ExpectStored(golden, stem + "grad_B", site.Get("B").grad());
  ExpectStored(golden, stem + "grad_diag", site.Get("sigma").grad());
}

void ExpectPenaltyGradients(GoldenSet& golden, KasaCase& at_hand, const std::string& mode) {
  for (SiteState& site : at_hand.state.sites) {
    for (NamedTensor& tensor : site.tensors) tensor.value.mutable_grad() = at::Tensor();
  }
  KasaAdapter()->Penalty(at_hand.state).backward();
  for (size_t m = 0; m < at_hand.modules.size(); ++m) {
    const std::string stem = at_hand.prefix + mode + ".aux_grad." + at_hand.modules[m] + ".";
    const SiteState& site = at_hand.state.sites[m];
    ExpectStored(golden, stem + "A", site.Get("A").grad());
    ExpectStored(golden, stem + "B", site.Get("B").grad());
    ExpectStored(golden, stem + "diag", site.Get("sigma").grad());
  }
}

void ExpectPenalties(GoldenSet& golden, KasaCase& at_hand) {
  const auto penalty = [&](const AdapterSpec& spec) {
    at_hand.state.spec = spec;
    return KasaAdapter()->Penalty(at_hand.state).item<double>();
  };
  const AdapterSpec official = With(at_hand.spec, "kasa.mode", "official");
  const auto modules = static_cast<double>(at_hand.modules.size());
  const std::string stem = at_hand.prefix + "official.";
  ExpectStored(golden, stem + "l2_sum",
               modules * penalty(With(With(official, "kasa.beta", "1"), "kasa.gamma", "0")));
  ExpectStored(golden, stem + "l3_sum",
               modules * penalty(With(With(official, "kasa.beta", "0"), "kasa.gamma", "1")));
  ExpectStored(golden, stem + "aux_loss", penalty(official));
  ExpectPenaltyGradients(golden, at_hand, "official");
  ExpectStored(golden, at_hand.prefix + "paper.aux_loss_sum_over_modules", penalty(at_hand.spec));
  ExpectPenaltyGradients(golden, at_hand, "paper");
}

TEST(KasaParity, TruncationForwardAndRegularisersAreThoseOfTheOfficialCodeAndThePaper) {
  GoldenSet golden("kasa/kasa.safetensors");
  for (const std::string& prefix : golden.Cases("beta_gamma")) {
    KasaCase at_hand = ReadCase(golden, prefix);
    for (size_t m = 0; m < at_hand.modules.size(); ++m) {
      SCOPED_TRACE(prefix + at_hand.modules[m]);
      ExpectTruncation(golden, at_hand, m);
      ExpectForward(golden, at_hand, m);
    }
    ExpectPenalties(golden, at_hand);
  }
  golden.ExpectAllUsed();
}

TEST(FederationParity, KasaStacksAndTruncatedBasesMergeExactly) {
  GoldenSet golden("federation/exact_merge.safetensors");
  const std::vector<double> p = golden.Numbers("p");
  const std::vector<int64_t> ranks = golden.Integers("kasa.ranks");
  ASSERT_EQ(golden.Count("kasa.client"), static_cast<int64_t>(p.size()));
  ASSERT_EQ(ranks.size(), p.size());
  const at::Tensor W_OI = golden.Doubles("kasa.W", {-1, -1});
  std::vector<KasaUpdate> updates;
  std::vector<KasaTruncation> truncations;
  for (size_t c = 0; c < p.size(); ++c) {
    const std::string stem = Str("kasa.client", c, ".");
    updates.push_back({{golden.Doubles(stem + "A", {ranks[c], W_OI.size(1)}),
                        golden.Doubles(stem + "B", {W_OI.size(0), ranks[c]}),
                        golden.Doubles(stem + "diag", {ranks[c]})},
                       golden.Number(stem + "scaling"),
                       p[c]});
    truncations.push_back({ranks[c], p[c]});
  }
  const KasaFactors stack = StackKasa(updates);
  golden.ExpectClose("kasa.stack_A", stack.A_RI, kFederationTolerance);
  golden.ExpectClose("kasa.stack_B", stack.B_OR, kFederationTolerance);
  golden.ExpectClose("kasa.stack_diag", stack.sigma_R, kFederationTolerance);
  const at::Tensor base_OI = MeanTruncatedBase(W_OI, truncations);
  golden.ExpectClose("kasa.mean_base_W", base_OI, kFederationTolerance);
  const KasaFactors small = OrthonormalKasa(stack);
  golden.ExpectClose("kasa.core_singular_values", small.sigma_R, kFederationTolerance);
  for (const KasaFactors& factors : {stack, small}) {
    const LowRank plain = LowerKasa(factors);
    golden.ExpectClose("kasa.mean_model_W", base_OI + at::matmul(plain.B_OR, plain.A_RI),
                       kFederationTolerance);
  }
  golden.ExpectAllUsed("kasa.");
}

}  // namespace
}  // namespace weft::testing
