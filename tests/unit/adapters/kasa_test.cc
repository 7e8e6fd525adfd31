#include "common/adapters/kasa.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/adapters/factor_init.h"

namespace weft {
namespace {

const std::vector<LinearSite> kSites = {{"layers.0.q", 12, 8}, {"layers.0.v", 12, 6}};

AdapterSpec Spec(std::vector<std::pair<std::string, std::string>> options = {}) {
  AdapterSpec spec;
  spec.method = "kasa";
  spec.rank = 4;
  spec.alpha = 6;
  spec.target_modules = {"q", "v"};
  spec.options = std::move(options);
  return spec;
}

at::Tensor Delta(const LowRank& factors) { return at::matmul(factors.B_OR, factors.A_RI); }

// ‖M·Mᵀ − I‖_F, the plain way.
double Off(const at::Tensor& M) {
  const at::Tensor gram = at::matmul(M, M.t());
  return (gram - at::eye(gram.size(0), gram.options())).norm().item<double>();
}

TEST(KasaTest, FreshFactorsAreALorasAndSigmaIsNormal) {
  AdapterSpec spec = Spec();
  spec.rank = 64;
  const std::vector<LinearSite> sites = {{"layers.0.q", 80, 70}, {"layers.1.q", 80, 70}};
  const AdapterState state = *KasaAdapter()->Init(spec, sites, 7);
  const SiteState& site = state.sites[0];
  EXPECT_TRUE(at::equal(site.Get("A"), RandomFactorA(64, 80, 7, "layers.0.q", "A")));
  EXPECT_EQ(site.Get("B").abs().max().item<float>(), 0);
  const at::Tensor& sigma = site.Get("sigma");
  EXPECT_NEAR(sigma.mean().item<double>(), 0, 0.5);  // four standard deviations of 1/√64
  EXPECT_NEAR(sigma.square().mean().item<double>(), 1, 0.75);
  EXPECT_FALSE(at::equal(sigma, state.sites[1].Get("sigma")));
  EXPECT_EQ(state.NumParameters(), 2 * 64 * (80 + 70 + 1));
}

TEST(KasaTest, TheUpdateIsAWeightedSumOfItsTriplets) {
  AdapterState state = *KasaAdapter()->Init(Spec(), kSites, 7);
  at::manual_seed(1);
  SiteState& site = state.sites[0];
  site.Get("B") = at::randn({8, 4});
  at::Tensor wanted = at::zeros({8, 12});
  for (int64_t j = 0; j < 4; ++j) {
    wanted += 1.5 * site.Get("sigma")[j] *  // 6/4
              at::outer(site.Get("B").select(1, j), site.Get("A").select(0, j));
  }
  EXPECT_TRUE(at::allclose(Delta(KasaAdapter()->Effective(state, 0)), wanted, 1e-5, 1e-6));
}

TEST(KasaTest, TheRegularisersAreThoseOfTheDefinition) {
  AdapterState state =
      CloneTo(*KasaAdapter()->Init(Spec({{"kasa.beta", "0.3"}, {"kasa.gamma", "0.7"}}), kSites, 7),
              at::kCPU, at::kDouble);
  at::manual_seed(2);
  double l2 = 0;
  double paper = 0;
  double official = 0;
  for (SiteState& site : state.sites) {
    site.Get("B") = at::randn_like(site.Get("B"));
    l2 += site.Get("sigma").square().sum().item<double>();
    paper += Off(site.Get("A")) + Off(site.Get("B").t());
    official += Off(site.Get("A").t()) + Off(site.Get("B"));
  }
  EXPECT_NEAR(KasaAdapter()->Penalty(state).item<double>(), 0.3 * l2 + 0.7 * paper, 1e-12);
  state.spec.options.emplace_back("kasa.mode", "official");
  EXPECT_NEAR(KasaAdapter()->Penalty(state).item<double>(), (0.3 * l2 + 0.7 * official) / 2, 1e-12);
  state.spec.options = {{"kasa.beta", "0"}, {"kasa.gamma", "0"}};
  EXPECT_FALSE(KasaAdapter()->Penalty(state).defined());
}

TEST(KasaTest, APerfectlyOrthonormalAdapterHasFiniteGradients) {
  AdapterState state = *KasaAdapter()->Init(Spec({{"kasa.gamma", "1"}}), kSites, 7);
  for (SiteState& site : state.sites) {
    site.Get("A") = at::eye(4, 12);
    site.Get("B") = at::eye(site.site.out, 4);
    for (NamedTensor& tensor : site.tensors) tensor.value.requires_grad_(true);
  }
  KasaAdapter()->Penalty(state).backward();
  for (const SiteState& site : state.sites) {
    EXPECT_EQ(site.Get("A").grad().abs().max().item<float>(), 0);
    EXPECT_EQ(site.Get("B").grad().abs().max().item<float>(), 0);
    EXPECT_GT(site.Get("sigma").grad().abs().min().item<float>(), 0);
  }
}

TEST(KasaTest, ProjectionGivesSingularVectorsAndValues) {
  at::manual_seed(3);
  const LowRankAdapter factors = {{kSites[0], {at::randn({4, 12}), at::randn({8, 4})}}};
  const Result<AdapterState> state = KasaAdapter()->Project(Spec(), factors);
  ASSERT_TRUE(state.ok()) << state.status();
  const SiteState& site = state->sites[0];
  EXPECT_LT(Off(site.Get("A")), 1e-5);
  EXPECT_LT(Off(site.Get("B").t()), 1e-5);
  const at::Tensor wanted = Delta(factors[0].factors);
  EXPECT_TRUE(at::allclose(site.Get("sigma") * 1.5, at::linalg_svdvals(wanted).narrow(0, 0, 4),
                           1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(Delta(KasaAdapter()->Effective(*state, 0)), wanted, 1e-5, 1e-5));
}

// What a client is sent in the first round: nothing learnt, or less than its rank.
TEST(KasaTest, EmptySlotsOfAProjectionCanLearn) {
  at::manual_seed(4);
  for (const int64_t rank : {0, 2, 4}) {
    at::Tensor B_OR = at::randn({8, rank});
    if (rank == 4) B_OR.narrow(1, 1, 2).zero_();  // two slots of the four are dead
    const LowRankAdapter factors = {{kSites[0], {at::randn({rank, 12}), B_OR}}};
    const Result<AdapterState> state = KasaAdapter()->Project(Spec(), factors);
    ASSERT_TRUE(state.ok()) << state.status();
    const SiteState& site = state->sites[0];
    const int64_t used = rank == 0 ? 0 : 2;
    EXPECT_TRUE(at::allclose(Delta(KasaAdapter()->Effective(*state, 0)), Delta(factors[0].factors),
                             1e-5, 1e-5));
    EXPECT_LT(Off(site.Get("A")), 1e-5) << rank;
    EXPECT_EQ(site.Get("B").narrow(1, used, 4 - used).abs().max().item<float>(), 0) << rank;
    EXPECT_TRUE(at::equal(site.Get("sigma").narrow(0, used, 4 - used), at::ones({4 - used})));
  }
}

TEST(KasaTest, ProjectionOfTooLargeARankIsRefused) {
  at::manual_seed(5);
  LowRankAdapter factors = {{kSites[0], {at::randn({5, 12}), at::randn({8, 5})}}};
  EXPECT_EQ(KasaAdapter()->Project(Spec(), factors).status().code(), Code::kFailedPrecondition);
  // Five slots that are four in truth do fit.
  factors[0].factors.B_OR.select(1, 4).copy_(factors[0].factors.B_OR.select(1, 0));
  factors[0].factors.A_RI[4].copy_(factors[0].factors.A_RI[0]);
  EXPECT_TRUE(KasaAdapter()->Project(Spec(), factors).ok());
}

TEST(KasaTest, TheSmallestComponentsAreThoseOfTheSvd) {
  at::manual_seed(6);
  // Sizes on both sides of kDirectSvdMax, wide, tall and square.
  for (const auto& [out, in] : std::vector<std::pair<int64_t, int64_t>>{
           {9, 14}, {14, 9}, {10, 10}, {300, 420}, {420, 300}, {300, 300}}) {
    const at::Tensor W_OI = at::randn({out, in}, at::kDouble);
    const auto [u, s, vh] = at::linalg_svd(W_OI, false);
    const int64_t side = std::min(in, out);
    const LowRank three = SmallestComponents(W_OI, 3);
    const at::Tensor wanted =
        at::matmul(u.narrow(1, side - 3, 3) * s.narrow(0, side - 3, 3), vh.narrow(0, side - 3, 3));
    EXPECT_LT((Delta(three) - wanted).norm().item<double>(), 1e-10 * s[0].item<double>())
        << out << "×" << in;
    // In order: the first pair is the smallest component.
    EXPECT_NEAR(Delta(SmallestComponents(W_OI, 1)).norm().item<double>(),
                s[side - 1].item<double>(), 1e-9);
    EXPECT_LT((Delta(SmallestComponents(W_OI, 1)) -
               Delta({three.A_RI.narrow(0, 0, 1), three.B_OR.narrow(1, 0, 1)}))
                  .norm()
                  .item<double>(),
              1e-8);
    EXPECT_EQ(SmallestComponents(W_OI, 0).A_RI.size(0), 0);
  }
}

TEST(KasaTest, BaseChangeTakesTheSmallestComponentsOut) {
  at::manual_seed(7);
  const std::vector<at::Tensor> weights = {at::randn({8, 12}), at::randn({6, 12})};
  const WeightOf weight = [&](const LinearSite& site) -> Result<at::Tensor> {
    return weights[site == kSites[0] ? 0 : 1];
  };
  AdapterSpec spec = Spec();
  spec.rank_pattern = {{"v", 2}};
  const LowRankAdapter change = **KasaAdapter()->BaseChange(spec, kSites, weight);
  ASSERT_EQ(change.size(), 2u);
  for (size_t i = 0; i < 2; ++i) {
    const int64_t removed = i == 0 ? 4 : 2;  // the site's rank
    const at::Tensor before = at::linalg_svdvals(weights[i]);
    const at::Tensor after = at::linalg_svdvals(weights[i] + Delta(change[i].factors));
    const int64_t kept = before.size(0) - removed;
    EXPECT_EQ(change[i].factors.A_RI.size(0), removed);
    EXPECT_TRUE(at::allclose(after.narrow(0, 0, kept), before.narrow(0, 0, kept), 1e-5, 1e-5));
    EXPECT_LT(after.narrow(0, kept, removed).max().item<double>(), 1e-5);
  }
  EXPECT_EQ((**KasaAdapter()->BaseChange(Spec({{"kasa.truncate", "1"}}), kSites, weight))[0]
                .factors.A_RI.size(0),
            1);
  EXPECT_FALSE(
      KasaAdapter()->BaseChange(Spec({{"kasa.truncate", "0"}}), kSites, weight)->has_value());
}

// methods.md, 5: r where in ≤ out, r − (in − out) where in is less than r larger, else nothing.
TEST(KasaTest, TheReleasedTruncationDependsOnTheShape) {
  const AdapterSpec official = Spec({{"kasa.mode", "official"}});
  EXPECT_EQ(*RemovedComponents(official, {"q", 12, 12}), 4);
  EXPECT_EQ(*RemovedComponents(official, {"q", 12, 20}), 4);
  EXPECT_EQ(*RemovedComponents(official, {"q", 12, 11}), 3);
  EXPECT_EQ(*RemovedComponents(official, {"q", 12, 8}), 0);
  EXPECT_EQ(*RemovedComponents(official, {"q", 99, 8}), 0);
  EXPECT_EQ(*RemovedComponents(Spec(), {"q", 99, 8}), 4);
}

TEST(KasaTest, ALayerOfWhichNothingWouldBeLeftIsRefusedByName) {
  const Status status = RemovedComponents(Spec(), {"layers.3.q", 12, 4}).status();
  EXPECT_EQ(status.code(), Code::kInvalidArgument);
  EXPECT_NE(status.message().find("layers.3.q"), std::string::npos) << status;
  EXPECT_NE(status.message().find("kasa.truncate"), std::string::npos) << status;
  EXPECT_EQ(*RemovedComponents(Spec({{"kasa.truncate", "0"}}), {"layers.3.q", 12, 4}), 0);
}

TEST(KasaTest, AWeightThatCannotBeReadIsTheCallersError) {
  const WeightOf weight = [](const LinearSite&) -> Result<at::Tensor> {
    return NotFound("no such weight");
  };
  EXPECT_EQ(KasaAdapter()->BaseChange(Spec(), kSites, weight).status().code(), Code::kNotFound);
}

TEST(KasaTest, ImpossibleOptionsAreRefused) {
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"kasa.beta", "-1"},
                                                        {"kasa.beta", "nan"},
                                                        {"kasa.gamma", "inf"},
                                                        {"kasa.gamma", "much"},
                                                        {"kasa.truncate", "-1"},
                                                        {"kasa.truncate", "1.5"},
                                                        {"kasa.mode", "peft"},
                                                        {"kasa.gemma", "1"}}) {
    const Status status = KasaAdapter()->CheckSpec(Spec({{name, value}}));
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << name << " " << value;
    EXPECT_NE(status.message().find("kasa."), std::string::npos) << status;
  }
}

}  // namespace
}  // namespace weft
