// What the posterior is for: an adapter that has learnt its noise by heart is too sure of itself.

#include "common/evaluate/posterior_classes.h"

#include <gtest/gtest.h>

#include "common/adapters/adapter.h"
#include "common/laplace/evidence.h"
#include "common/model/bind_dense.h"
#include "tests/unit/model/tiny_model.h"

namespace weft {
namespace {

// A row's class is told by its second token, but every fourth row is labelled with the other one.
std::vector<TokenRow> NoisyRows(size_t count, uint64_t seed) {
  RandomStream stream(seed);
  std::vector<TokenRow> rows;
  for (size_t i = 0; i < count; ++i) {
    TokenRow row;
    for (int t = 0; t < 4; ++t) row.ids.push_back(4 + static_cast<int32_t>(stream.Below(27)));
    row.row_class = static_cast<int32_t>(stream.Below(2));
    row.ids[1] = 5 + row.row_class;
    if (stream.Below(4) == 0) row.row_class = 1 - row.row_class;
    rows.push_back(std::move(row));
  }
  return rows;
}

AdapterState FreshAdapter(const Model& model) {
  AdapterSpec spec;
  spec.rank = 4;
  spec.alpha = 8;
  spec.target_modules = {"query", "value", "attention.output.dense"};
  AdapterState state = *(*FindAdapter("lora"))->Init(spec, *MatchSites(spec, model.sites()), 3);
  for (SiteState& site : state.sites) {
    for (NamedTensor& tensor : site.tensors) tensor.value.set_requires_grad(true);
  }
  return state;
}

// Plain gradient descent on the mean loss of all rows at once.
void Train(const Model& model, AdapterState& adapter, std::span<const TokenRow> rows, int steps) {
  std::vector<const TokenRow*> pointers;
  for (const TokenRow& row : rows) pointers.push_back(&row);
  const ClassBatch batch = *PackClassRows(model, pointers, {});
  for (int step = 0; step < steps; ++step) {
    const AdapterBinding binding{*Apply(model, adapter)};
    (model.LossSum(batch.packed, binding, {}) / static_cast<double>(rows.size())).backward();
    const at::NoGradGuard no_grad;
    for (SiteState& site : adapter.sites) {
      for (NamedTensor& tensor : site.tensors) {
        tensor.value.sub_(tensor.value.grad(), 0.3);
        tensor.value.mutable_grad() = at::Tensor();
      }
    }
  }
}

TEST(EvaluatePosteriorTest, AnOverTrainedAdapterIsBetterCalibratedOnAverage) {
  const auto model = testing::TinyModel("roberta");
  const std::vector<TokenRow> train = NoisyRows(24, 1);
  const std::vector<TokenRow> held_out = NoisyRows(600, 2);
  AdapterState adapter = FreshAdapter(*model);
  Train(*model, adapter, train, 400);
  const AdapterBinding beside;
  const MeasuredAdapter measured{*model, adapter, beside, "h"};
  JobControl control;
  const Result<LaplaceStatistics> sums =
      MeasureCurvature(measured, train, {.batch_rows = 24}, control);
  ASSERT_TRUE(sums.ok()) << sums.status();
  const LaplacePosterior posterior =
      *MakePosterior(*sums, MatrixValues(adapter), Normalization::kTokenRows);
  const PriorFit prior = *FitPrior(posterior, PriorSharing::kOne);
  PosteriorSettings settings{.batch_rows = 40};
  settings.draws.samples = 1000;
  const Result<PosteriorClasses> got =
      EvaluatePosterior(measured, posterior, prior.precisions, held_out, settings, control);
  ASSERT_TRUE(got.ok()) << got.status();
  // Measured: 1.071 → 0.950, 0.157 → 0.117, 0.564 → 0.526, and an accuracy of 0.635 and 0.602.
  EXPECT_LT(got->average.nll, 0.93 * got->map.nll);
  EXPECT_LT(got->average.ece, 0.9 * got->map.ece);
  EXPECT_LT(got->average.brier, 0.97 * got->map.brier);
  EXPECT_NEAR(got->average.accuracy, got->map.accuracy, 0.06);
}

}  // namespace
}  // namespace weft
