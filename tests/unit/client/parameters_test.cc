// Parameters as the optimiser sees them: one buffer that the adapter's tensors view.

#include "client/parameters.h"

#include <gtest/gtest.h>

#include "client/optimizer.h"
#include "tests/unit/client/trainer_fixture.h"

namespace weft {
namespace {

using ParametersTest = testing::TrainerTest;

TEST_F(ParametersTest, TheAdaptersTensorsAreViewsOfOneBuffer) {
  const AdapterState start = Fresh();
  const Result<FlatAdapter> flat = Flatten(start, at::kCPU);
  ASSERT_TRUE(flat.ok()) << flat.status();
  ASSERT_EQ(flat->parameters.values.size(), 1u);
  EXPECT_EQ(flat->parameters.NumElements(), start.NumParameters());
  EXPECT_TRUE(SameLayout(flat->state, start));
  {
    const at::NoGradGuard no_grad;
    at::Tensor(flat->parameters.values[0]).fill_(3);
  }
  for (const SiteState& site : flat->state.sites) {
    for (const NamedTensor& tensor : site.tensors) {
      EXPECT_TRUE((tensor.value == 3).all().item<bool>()) << site.site.path << tensor.name;
      EXPECT_TRUE(tensor.value.requires_grad());
    }
  }
  EXPECT_FALSE((start.sites[0].Get("A") == 3).any().item<bool>()) << "the start is a copy";
}

TEST_F(ParametersTest, WhatAutogradAddsArrivesInTheGradientBufferAndAccumulates) {
  Result<FlatAdapter> flat = Flatten(Fresh(), at::kCPU);
  ASSERT_TRUE(flat.ok()) << flat.status();
  ParameterSet& set = flat->parameters;
  const auto backward = [&] {
    at::Tensor sum = at::zeros({});
    for (const SiteState& site : flat->state.sites) {
      for (const NamedTensor& tensor : site.tensors) sum = sum + 2 * tensor.value.sum();
    }
    sum.backward();
  };
  backward();
  EXPECT_TRUE((set.gradients[0] == 2).all().item<bool>());
  backward();
  EXPECT_TRUE((set.gradients[0] == 4).all().item<bool>()) << "accumulation";
  const double elements = static_cast<double>(set.NumElements());
  EXPECT_NEAR(set.GradientNorm(), 4 * std::sqrt(elements), 1e-3);
  set.ScaleGradients(0.25);
  EXPECT_TRUE((set.gradients[0] == 1).all().item<bool>());
  set.ZeroGradients();
  EXPECT_EQ(set.GradientNorm(), 0);
  backward();
  EXPECT_TRUE((set.gradients[0] == 2).all().item<bool>()) << "still the same buffer";
}

TEST_F(ParametersTest, AStepOfTheOptimiserMovesTheAdapter) {
  Result<FlatAdapter> flat = Flatten(Fresh(), at::kCPU);
  ASSERT_TRUE(flat.ok()) << flat.status();
  LocalTraining training;
  AdamW optimizer(training, flat->parameters);
  at::Tensor(flat->parameters.gradients[0]).fill_(1);
  const at::Tensor before = flat->state.sites[1].Get("B").detach().clone();
  optimizer.Step(0.125);
  // AdamW's first step is lr · sign(g).
  const at::Tensor moved = before - flat->state.sites[1].Get("B").detach();
  EXPECT_TRUE(at::allclose(moved, at::full_like(moved, 0.125), 1e-5, 1e-7));
}

TEST_F(ParametersTest, HalfPrecisionAdaptersTrainInFloat32) {
  const AdapterState half = CloneTo(Fresh(), at::kCPU, at::kBFloat16);
  const Result<FlatAdapter> flat = Flatten(half, at::kCPU);
  ASSERT_TRUE(flat.ok()) << flat.status();
  EXPECT_EQ(flat->parameters.values[0].scalar_type(), at::kFloat);
  EXPECT_TRUE(
      at::equal(flat->state.sites[0].Get("A").detach(), half.sites[0].Get("A").to(at::kFloat)));
}

TEST_F(ParametersTest, AModelsOwnWeightsAreThoseItWasLoadedToTrain) {
  EXPECT_EQ(WeightsOf(*model_).status().code(), Code::kFailedPrecondition);
  const auto trainable = LoadModel({.trainable = true});
  Result<ParameterSet> set = WeightsOf(*trainable);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->values.size(), trainable->AllWeights().size());
  // Asked for again, it is the same gradients: nothing is doubled.
  at::Tensor(set->gradients[0]).fill_(5);
  EXPECT_TRUE((WeightsOf(*trainable)->gradients[0] == 5).all().item<bool>());
}

}  // namespace
}  // namespace weft
