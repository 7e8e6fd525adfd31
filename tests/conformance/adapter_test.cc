// Holds every method of the adapter registry to the contract of adapter.h; a new method is tested
// by being registered.

#include "common/adapters/adapter.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include <gtest/gtest.h>

#include "common/adapters/peft_io.h"
#include "common/codec/adapter_block.h"
#include "common/codec/layout.h"
#include "tests/support/temp_folder.h"

// Shape legend: R rank, I in, O out, N rows of input.

namespace weft {
namespace {

// Some layers of one kind and shape, whose adapters a method may let share tensors, and some alone.
const std::vector<LinearSite> kSites = {
    {"model.layers.0.self_attn.q_proj", 10, 8}, {"model.layers.0.mlp.up_proj", 10, 14},
    {"model.layers.1.self_attn.q_proj", 10, 8}, {"model.layers.1.mlp.down_proj", 14, 10},
    {"model.layers.2.self_attn.q_proj", 10, 8}, {"score", 10, 8}};

AdapterSpec SpecFor(const Adapter& method) {
  AdapterSpec spec;
  spec.method = method.name();
  spec.rank = 4;
  spec.alpha = 6;
  spec.target_modules = {"all-linear"};
  spec.rank_pattern = {{"up_proj", 3}};
  return spec;
}

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A state in the middle of training: every trainable tensor has some values.
AdapterState Trained(const Adapter& method) {
  AdapterState state = *method.Init(SpecFor(method), kSites, 11);
  at::manual_seed(5);
  const std::vector<std::string> trainable = method.Trainable(state.spec);
  MapTensors(state.sites, [&](const NamedTensor& tensor) {
    if (!Contains(trainable, tensor.name)) return tensor.value;
    return tensor.value + 0.1 * at::randn_like(tensor.value);
  });
  return state;
}

// Asks for the gradients of every trainable tensor, and forgets those it had.
void WantGradients(const Adapter& method, AdapterState& state) {
  const std::vector<std::string> trainable = method.Trainable(state.spec);
  for (SiteState& site : state.sites) {
    for (NamedTensor& tensor : site.tensors) {
      if (!Contains(trainable, tensor.name)) continue;
      tensor.value.requires_grad_(true).mutable_grad() = at::Tensor();
    }
  }
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
    // Sums over many terms may run in another order: float32's rounding.
    EXPECT_TRUE(
        at::allclose(Delta(lowered[i].factors), Delta(method().Effective(state, i)), 1e-5, 1e-6));
  }
}

TEST_P(AdapterConformance, OnlyDeclaredTensorsGetGradientsAndAllOfThemDo) {
  AdapterState state = Trained(method());
  const std::vector<std::string> trainable = method().Trainable(state.spec);
  WantGradients(method(), state);
  at::Tensor total = at::zeros({});
  for (size_t i = 0; i < kSites.size(); ++i) {
    total = total + Delta(method().Effective(state, i)).pow(2).sum();
  }
  total.backward();
  for (const SiteState& site : state.sites) {
    for (const NamedTensor& tensor : site.tensors) {
      EXPECT_EQ(tensor.value.grad().defined(), Contains(trainable, tensor.name))
          << site.site.path << " " << tensor.name;
    }
  }
}

// Central differences in float64 of a loss in one tensor, at its first, middle and last element.
void ExpectGradient(const std::function<at::Tensor()>& loss, at::Tensor tensor,
                    const std::string& name) {
  tensor.requires_grad_(true).mutable_grad() = at::Tensor();
  loss().backward();
  ASSERT_TRUE(tensor.grad().defined()) << name;
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
    EXPECT_NEAR(analytic, numeric, 1e-5 * (1 + std::abs(numeric))) << name << " " << element;
  }
}

// loss = ½‖(W + ΔW)x − y‖² of one site.
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
      ExpectGradient(loss, state.sites[i].Get(name), kSites[i].path + " " + name);
    }
  }
}

TEST_P(AdapterConformance, ThePenaltysGradientAgreesWithFiniteDifferences) {
  AdapterState state = CloneTo(Trained(method()), at::kCPU, at::kDouble);
  if (!method().Penalty(state).defined()) GTEST_SKIP() << "no penalty";
  const auto penalty = [&] { return method().Penalty(state); };
  for (SiteState& site : state.sites) {
    for (const std::string& name : method().Trainable(state.spec)) {
      ExpectGradient(penalty, site.Get(name), site.site.path + " penalty " + name);
    }
  }
}

// What one call for all sites gives, and the gradients it carries: in a tensor that sites share,
// the sum of theirs.
TEST_P(AdapterConformance, AllSitesTogetherAreEachSiteAlone) {
  AdapterState together = CloneTo(Trained(method()), at::kCPU, at::kDouble);
  AdapterState alone = CloneTo(together, at::kCPU, at::kDouble);
  WantGradients(method(), together);
  WantGradients(method(), alone);
  const std::shared_ptr<const Prepared> prepared = method().Prepare(together, at::kCPU);
  const std::vector<LowRank> all = method().EffectiveAll(together, prepared.get());
  ASSERT_EQ(all.size(), kSites.size());
  at::Tensor loss = at::zeros({}, at::kDouble);
  for (size_t i = 0; i < kSites.size(); ++i) {
    const LowRank one = method().Effective(alone, i);
    EXPECT_TRUE(at::allclose(Delta(all[i]), Delta(one), 1e-10, 1e-12)) << kSites[i].path;
    EXPECT_EQ(one.A_RI.size(0), method().FactorRank(alone.spec, kSites[i])) << kSites[i].path;
    loss = loss + Delta(all[i]).pow(2).sum();
    Delta(one).pow(2).sum().backward();
  }
  loss.backward();
  for (size_t i = 0; i < kSites.size(); ++i) {
    for (const std::string& name : method().Trainable(alone.spec)) {
      EXPECT_TRUE(at::allclose(together.sites[i].Get(name).grad(), alone.sites[i].Get(name).grad(),
                               1e-9, 1e-11))
          << kSites[i].path << " " << name;
    }
  }
}

TEST_P(AdapterConformance, LayoutSaysWhatInitMakes) {
  const AdapterSpec spec = SpecFor(method());
  const AdapterState state = *method().Init(spec, kSites, 11);
  const std::vector<SiteLayout> layout = *method().Layout(spec, kSites);
  ASSERT_EQ(layout.size(), kSites.size());
  int64_t parameters = 0;
  for (size_t i = 0; i < kSites.size(); ++i) {
    const std::vector<NamedTensor>& tensors = state.sites[i].tensors;
    ASSERT_EQ(layout[i].size(), tensors.size()) << kSites[i].path;
    for (size_t j = 0; j < tensors.size(); ++j) {
      const TensorLayout& said = layout[i][j];
      EXPECT_EQ(said.name, tensors[j].name) << kSites[i].path;
      EXPECT_EQ(at::IntArrayRef(said.shape), tensors[j].value.sizes()) << said.name;
      ASSERT_LE(said.owner, i) << said.name;
      EXPECT_TRUE(state.sites[said.owner].Get(said.name).is_same(tensors[j].value)) << said.name;
      if (said.owner == i) parameters += tensors[j].value.numel();
    }
  }
  EXPECT_EQ(state.NumParameters(), parameters);  // nothing is shared that the layout does not say
}

// An adapter is on the wire what it is in memory: a tensor that sites share crosses once.
TEST_P(AdapterConformance, TheWireCarriesEachTensorOnce) {
  const AdapterSpec spec = SpecFor(method());
  const BlockSection section =
      *EncodeAdapter(*method().Init(spec, kSites, 11), "adapter", **FindCodec("float32"));
  const std::vector<SiteLayout> layout = *method().Layout(spec, kSites);
  for (size_t i = 0; i < kSites.size(); ++i) {
    for (size_t j = 0; j < layout[i].size(); ++j) {
      EXPECT_EQ(section.sites[i].tensors[j].shared_with.value_or(i), layout[i][j].owner)
          << kSites[i].path << " " << layout[i][j].name;
    }
  }
  EXPECT_TRUE(CheckLayout(section, spec, kSites, DType::kFloat32).ok());
  const AdapterState decoded = *DecodeAdapter(section, **FindCodec("float32"), at::kCPU);
  EXPECT_EQ(decoded.NumParameters(), method().Init(spec, kSites, 11)->NumParameters());
}

// What a method takes out of the base is a function of spec and weights, and takes something out.
TEST_P(AdapterConformance, BaseChangeIsAFixedPartOfTheWeights) {
  at::manual_seed(9);
  std::vector<at::Tensor> weights;
  for (const LinearSite& site : kSites) weights.push_back(at::randn({site.out, site.in}));
  const WeightOf weight = [&](const LinearSite& site) -> Result<at::Tensor> {
    return weights[static_cast<size_t>(std::find(kSites.begin(), kSites.end(), site) -
                                       kSites.begin())];
  };
  const AdapterSpec spec = SpecFor(method());
  const std::optional<LowRankAdapter> change = *method().BaseChange(spec, kSites, weight);
  if (!change) GTEST_SKIP() << "leaves the base as it is";
  const std::optional<LowRankAdapter> again = *method().BaseChange(spec, kSites, weight);
  for (size_t c = 0; c < change->size(); ++c) {
    const LowRankSite& site = (*change)[c];
    const at::Tensor W_OI = *weight(site.site);
    EXPECT_EQ(site.factors.A_RI.scalar_type(), at::kFloat);
    EXPECT_EQ(Delta(site.factors).sizes(), W_OI.sizes()) << site.site.path;
    EXPECT_TRUE(at::equal(site.factors.A_RI, (*again)[c].factors.A_RI)) << site.site.path;
    EXPECT_TRUE(at::equal(site.factors.B_OR, (*again)[c].factors.B_OR)) << site.site.path;
    // What is left and what went are orthogonal.
    const at::Tensor left = W_OI + Delta(site.factors);
    EXPECT_NEAR((left * Delta(site.factors)).sum().item<double>(), 0, 1e-4) << site.site.path;
    EXPECT_LT(left.norm().item<double>(), W_OI.norm().item<double>()) << site.site.path;
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
                         [](const auto& instance) {
                           std::string name(instance.param->name());
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

}  // namespace
}  // namespace weft
