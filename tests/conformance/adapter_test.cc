// Holds every method of the adapter registry to the contract of adapter.h; a new method is tested
// by being registered.

#include "common/adapters/adapter.h"

#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/adapters/peft_io.h"
#include "common/codec/adapter_block.h"
#include "tests/support/temp_folder.h"

// Shape legend: R rank, I in, O out, N rows of input.

namespace weft {
namespace {

const std::vector<LinearSite> kSites = {{"model.layers.0.self_attn.q_proj", 10, 8},
                                        {"model.layers.0.mlp.up_proj", 10, 14},
                                        {"model.layers.1.mlp.down_proj", 14, 10}};

AdapterSpec SpecFor(const Adapter& method) {
  AdapterSpec spec;
  spec.method = method.name();
  spec.rank = 4;
  spec.alpha = 6;
  spec.target_modules = {"all-linear"};
  spec.rank_pattern = {{"up_proj", 3}};
  return spec;
}

// A state in the middle of training: every trainable tensor has some values.
AdapterState Trained(const Adapter& method) {
  AdapterState state = *method.Init(SpecFor(method), kSites, 11);
  at::manual_seed(5);
  for (SiteState& site : state.sites) {
    for (const std::string& name : method.Trainable(state.spec)) {
      site.Get(name).add_(at::randn_like(site.Get(name)), 0.1);
    }
  }
  return state;
}

at::Tensor Delta(const LowRank& factors) { return factors.B_OR.mm(factors.A_RI); }

class AdapterConformance : public ::testing::TestWithParam<const Adapter*> {
 protected:
  const Adapter& method() const { return *GetParam(); }
};

TEST_P(AdapterConformance, FreshAdapterLeavesTheBaseAsItIs) {
  const AdapterState state = *method().Init(SpecFor(method()), kSites, 11);
  ASSERT_EQ(state.sites.size(), kSites.size());
  for (size_t i = 0; i < kSites.size(); ++i) {
    EXPECT_EQ(state.sites[i].site, kSites[i]);
    EXPECT_LT(Delta(method().Effective(state, i)).abs().max().item<double>(), 1e-7);
  }
}

TEST_P(AdapterConformance, EffectiveFactorsHaveTheLayersShape) {
  const AdapterState state = Trained(method());
  for (size_t i = 0; i < kSites.size(); ++i) {
    const LowRank factors = method().Effective(state, i);
    EXPECT_EQ(factors.A_RI.size(1), kSites[i].in);
    EXPECT_EQ(factors.B_OR.size(0), kSites[i].out);
    EXPECT_EQ(factors.A_RI.size(0), factors.B_OR.size(1));
  }
}

TEST_P(AdapterConformance, LowerIsTheEffectiveUpdateWithoutGradients) {
  const AdapterState state = Trained(method());
  const LowRankAdapter lowered = *Lower(state);
  for (size_t i = 0; i < kSites.size(); ++i) {
    EXPECT_FALSE(lowered[i].factors.B_OR.requires_grad());
    EXPECT_TRUE(at::allclose(Delta(lowered[i].factors), Delta(method().Effective(state, i))));
  }
}

TEST_P(AdapterConformance, OnlyDeclaredTensorsGetGradientsAndAllOfThemDo) {
  AdapterState state = Trained(method());
  const std::vector<std::string> trainable = method().Trainable(state.spec);
  for (SiteState& site : state.sites) {
    for (const std::string& name : trainable) site.Get(name).requires_grad_(true);
  }
  at::Tensor total = at::zeros({});
  for (size_t i = 0; i < kSites.size(); ++i) {
    total = total + Delta(method().Effective(state, i)).pow(2).sum();
  }
  total.backward();
  for (const SiteState& site : state.sites) {
    for (const NamedTensor& tensor : site.tensors) {
      const bool declared =
          std::find(trainable.begin(), trainable.end(), tensor.name) != trainable.end();
      EXPECT_EQ(tensor.value.grad().defined(), declared) << site.site.path << " " << tensor.name;
    }
  }
}

// Central differences in float64: loss = ½‖(W + ΔW)x − y‖² of one site.
TEST_P(AdapterConformance, GradientsAgreeWithFiniteDifferences) {
  AdapterState state = CloneTo(Trained(method()), at::kCPU, at::kDouble);
  at::manual_seed(6);
  for (size_t i = 0; i < kSites.size(); ++i) {
    const at::Tensor W_OI = at::randn({kSites[i].out, kSites[i].in}, at::kDouble);
    const at::Tensor x_NI = at::randn({5, kSites[i].in}, at::kDouble);
    const auto loss = [&] {
      const LowRank factors = method().Effective(state, i);
      return (x_NI.mm(W_OI.t()) + x_NI.mm(factors.A_RI.t()).mm(factors.B_OR.t()))
          .pow(2)
          .sum()
          .mul(0.5);
    };
    for (const std::string& name : method().Trainable(state.spec)) {
      at::Tensor& tensor = state.sites[i].Get(name);
      tensor.requires_grad_(true);
      loss().backward();
      const at::Tensor gradient = tensor.grad().clone();
      tensor.requires_grad_(false);
      for (const int64_t element : {int64_t{0}, tensor.numel() / 2, tensor.numel() - 1}) {
        at::Tensor flat = tensor.view({-1});
        const double step = 1e-5;
        flat[element].add_(step);
        const double above = loss().item<double>();
        flat[element].sub_(2 * step);
        const double below = loss().item<double>();
        flat[element].add_(step);
        const double numeric = (above - below) / (2 * step);
        const double analytic = gradient.view({-1})[element].item<double>();
        EXPECT_NEAR(analytic, numeric, 1e-5 * (1 + std::abs(numeric))) << name << element;
      }
    }
  }
}

TEST_P(AdapterConformance, EncodingAgainGivesTheSameBytes) {
  const AdapterState state = Trained(method());
  for (const Codec* codec : CodecRegistry()) {
    AdapterBundle bundle;
    bundle.adapter = state;
    const Result<Blob> first = EncodeBundle(bundle, *codec);
    ASSERT_TRUE(first.ok()) << first.status();
    const Result<AdapterBundle> decoded = DecodeBundle(*first, at::kCPU);
    ASSERT_TRUE(decoded.ok()) << codec->name() << decoded.status();
    ASSERT_TRUE(decoded->adapter.has_value());
    EXPECT_TRUE(SameLayout(*decoded->adapter, state));
    const Result<Blob> second = EncodeBundle(*decoded, *codec);
    ASSERT_TRUE(second.ok()) << second.status();
    EXPECT_EQ(first->view(), second->view()) << codec->name();
  }
}

TEST_P(AdapterConformance, ProjectedFactorsKeepTheUpdateWhereTheMethodHasAProjection) {
  const AdapterState state = Trained(method());
  const LowRankAdapter factors = *Lower(state);
  const Result<AdapterState> projected = method().Project(state.spec, factors);
  if (!projected.ok()) {
    EXPECT_EQ(projected.status().code(), Code::kFailedPrecondition);
    return;
  }
  EXPECT_TRUE(SameLayout(*projected, state));
  const LowRankAdapter back = *Lower(*projected);
  for (size_t i = 0; i < kSites.size(); ++i) {
    EXPECT_TRUE(at::allclose(Delta(back[i].factors), Delta(factors[i].factors), 1e-5, 1e-6));
  }
}

TEST_P(AdapterConformance, ExportToPeftKeepsTheUpdate) {
  const AdapterState state = Trained(method());
  const testing::TempFolder folder;
  ASSERT_TRUE(WritePeft(state, folder.path(), {.base_model = "base"}).ok());
  const Result<PeftFolder> read = ReadPeft(folder.path(), kSites);
  ASSERT_TRUE(read.ok()) << read.status();
  const LowRankAdapter wanted = *Lower(state);
  const LowRankAdapter got = *Lower(read->state);
  ASSERT_EQ(got.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    EXPECT_EQ(got[i].site, wanted[i].site);
    EXPECT_TRUE(at::equal(Delta(got[i].factors), Delta(wanted[i].factors)));
  }
}

TEST_P(AdapterConformance, SpecsOfRankZeroAreRefused) {
  AdapterSpec spec = SpecFor(method());
  spec.rank = 0;
  EXPECT_EQ(method().CheckSpec(spec).code(), Code::kInvalidArgument);
  EXPECT_FALSE(method().Init(spec, kSites, 1).ok());
}

INSTANTIATE_TEST_SUITE_P(Registry, AdapterConformance, ::testing::ValuesIn(AdapterRegistry()),
                         [](const auto& instance) { return std::string(instance.param->name()); });

}  // namespace
}  // namespace weft
