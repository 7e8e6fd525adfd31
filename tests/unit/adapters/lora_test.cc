#include "common/adapters/lora.h"

#include <cmath>

#include <gtest/gtest.h>

#include "common/adapters/peft_io.h"

namespace weft {
namespace {

const std::vector<LinearSite> kSites = {{"a.q_proj", 16, 12}, {"a.v_proj", 16, 4}};

AdapterSpec Spec() {
  AdapterSpec spec;
  spec.rank = 4;
  spec.alpha = 6;
  spec.target_modules = {"q_proj", "v_proj"};
  return spec;
}

TEST(LoraTest, FreshFactorsAreKaimingUniformAndZero) {
  const AdapterState state = *LoraAdapter()->Init(Spec(), kSites, 7);
  ASSERT_EQ(state.sites.size(), 2u);
  const at::Tensor& A_RI = state.sites[0].Get("A");
  EXPECT_EQ(A_RI.sizes(), at::IntArrayRef({4, 16}));
  EXPECT_LE(A_RI.abs().max().item<float>(), 0.25f);  // 1/√16
  EXPECT_GT(A_RI.abs().max().item<float>(), 0.2f);   // 64 draws reach near the bound
  EXPECT_NEAR(A_RI.mean().item<float>(), 0, 0.06);   // σ of the mean is 0.25/√3/8 = 0.018
  EXPECT_EQ(state.sites[0].Get("B").abs().sum().item<float>(), 0);
  EXPECT_EQ(state.NumParameters(), 4 * (16 + 12) + 4 * (16 + 4));
}

TEST(LoraTest, FreshFactorsDependOnSeedAndPathOnly) {
  const AdapterState all = *LoraAdapter()->Init(Spec(), kSites, 7);
  const AdapterState one = *LoraAdapter()->Init(Spec(), std::span(kSites).subspan(1), 7);
  const AdapterState other = *LoraAdapter()->Init(Spec(), kSites, 8);
  EXPECT_TRUE(at::equal(all.sites[1].Get("A"), one.sites[0].Get("A")));
  EXPECT_FALSE(at::equal(all.sites[1].Get("A"), other.sites[1].Get("A")));
}

TEST(LoraTest, LayersOfOneShapeStartDifferently) {
  const std::vector<LinearSite> same = {{"layers.0.q_proj", 16, 16}, {"layers.1.q_proj", 16, 16}};
  const AdapterState state = *LoraAdapter()->Init(Spec(), same, 7);
  EXPECT_FALSE(at::equal(state.sites[0].Get("A"), state.sites[1].Get("A")));
}

TEST(LoraTest, ScalingIsAbsorbedIntoB) {
  AdapterState state = *LoraAdapter()->Init(Spec(), kSites, 7);
  state.sites[0].Get("B").fill_(2);
  EXPECT_EQ(LoraAdapter()->Effective(state, 0).B_OR[0][0].item<float>(), 3.f);  // 2·6/4
  state.spec.rslora = true;
  EXPECT_EQ(LoraAdapter()->Effective(state, 0).B_OR[0][0].item<float>(), 6.f);  // 2·6/√4
}

TEST(LoraTest, ProjectionKeepsTheProductAndPadsTheRank) {
  LowRankAdapter factors;
  factors.push_back({kSites[0], {at::randn({2, 16}), at::randn({12, 2})}});
  const Result<AdapterState> state = LoraAdapter()->Project(Spec(), factors);
  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(state->sites[0].Get("A").size(0), 4);
  const LowRank back = LoraAdapter()->Effective(*state, 0);
  const at::Tensor wanted = factors[0].factors.B_OR.mm(factors[0].factors.A_RI);
  EXPECT_TRUE(at::allclose(back.B_OR.mm(back.A_RI), wanted, 1e-5, 1e-6));
}

TEST(LoraTest, ProjectionOfTooLargeARankIsRefused) {
  LowRankAdapter factors;
  factors.push_back({kSites[0], {at::randn({5, 16}), at::randn({12, 5})}});
  EXPECT_EQ(LoraAdapter()->Project(Spec(), factors).status().code(), Code::kFailedPrecondition);
}

TEST(LoraTest, ImpossibleSpecsAreRefused) {
  const auto check = [](auto change) {
    AdapterSpec spec = Spec();
    change(spec);
    return LoraAdapter()->CheckSpec(spec).code();
  };
  EXPECT_EQ(check([](AdapterSpec& s) { s.rank = 0; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.rank = int64_t{1} << 40; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.alpha = NAN; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.dropout = 1; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.dropout = NAN; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.rank_pattern = {{"q", 0}}; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) {
              s.alpha_pattern = {{"q", INFINITY}};
            }),
            Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec& s) { s.options = {{"tiers", "2"}}; }), Code::kInvalidArgument);
  EXPECT_EQ(check([](AdapterSpec&) {}), Code::kOk);
}

TEST(LoraTest, UnknownMethodListsTheKnownOnes) {
  const auto found = FindAdapter("loha");
  EXPECT_EQ(found.status().code(), Code::kNotFound);
  EXPECT_NE(found.status().message().find("lora"), std::string::npos);
}

TEST(AdapterStateTest, CloneSharesNothingAndLayoutIgnoresValues) {
  const AdapterState state = *LoraAdapter()->Init(Spec(), kSites, 7);
  AdapterState copy = CloneTo(state, at::kCPU, at::kFloat);
  copy.sites[0].Get("A").fill_(1);
  EXPECT_NE(state.sites[0].Get("A")[0][0].item<float>(), 1);
  EXPECT_TRUE(SameLayout(state, copy));
  copy.sites[0].tensors[0].value = at::zeros({3, 16});
  EXPECT_FALSE(SameLayout(state, copy));
}

TEST(AdapterStateTest, FactorsOfManyRanksBecomeOneLoraOfScalingOne) {
  LowRankAdapter factors;
  const std::vector<int64_t> ranks = {3, 3, 7, 1};
  for (size_t i = 0; i < ranks.size(); ++i) {
    factors.push_back({{"model.layers." + std::to_string(i) + ".q_proj", 16, 12},
                       {at::randn({ranks[i], 16}), at::randn({12, ranks[i]})}});
  }
  AdapterSpec spec = Spec();
  spec.rslora = true;
  const AdapterState lora = LoraFromFactors(spec, factors);
  EXPECT_EQ(lora.spec.rank, 3);
  for (size_t i = 0; i < ranks.size(); ++i) {
    EXPECT_EQ(RankFor(lora.spec, factors[i].site.path), ranks[i]);
    EXPECT_EQ(ScalingFor(lora.spec, factors[i].site.path), 1.0);
  }
}

}  // namespace
}  // namespace weft
