#pragma once
// A small model, rows and settings for tests of local training, and a model that misbehaves.

#include <filesystem>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "client/trainer.h"
#include "common/adapters/adapter.h"
#include "common/adapters/distance.h"
#include "common/base/random.h"
#include "tests/support/small_model.h"
#include "tests/support/temp_folder.h"

namespace weft::testing {

// A model that behaves like another one but for its memory and, once, its loss.
class StubbornModel final : public Model {
 public:
  explicit StubbornModel(std::shared_ptr<const Model> inner) : inner_(std::move(inner)) {}

  const ModelConfig& config() const override { return inner_->config(); }
  const std::vector<LinearSite>& sites() const override { return inner_->sites(); }
  at::Device device() const override { return inner_->device(); }
  at::ScalarType dtype() const override { return inner_->dtype(); }
  at::Tensor LossSum(const PackedBatch& batch, const AdapterBinding& adapters,
                     const ForwardOptions& options) const override {
    ++calls_;
    if (batch.num_rows() > rows_max_) TORCH_CHECK_WITH(OutOfMemoryError, false, "out of memory");
    const at::Tensor loss = inner_->LossSum(batch, adapters, options);
    // √ of zero: the value is right, its gradient infinite.
    if (calls_ == infinite_gradient_at_) return loss + (loss - loss.detach()).sqrt();
    return calls_ == nan_at_ ? loss * std::numeric_limits<double>::quiet_NaN() : loss;
  }
  at::Tensor Logits(const PackedBatch& batch, const AdapterBinding& adapters) const override {
    return inner_->Logits(batch, adapters);
  }
  std::unique_ptr<Cache> NewCache() const override { return inner_->NewCache(); }
  at::Tensor Step(const at::Tensor& ids_N, Cache& cache,
                  const AdapterBinding& adapters) const override {
    return inner_->Step(ids_N, cache, adapters);
  }
  std::vector<NamedTensor> TrainableWeights() const override { return inner_->TrainableWeights(); }
  std::vector<NamedTensor> AllWeights() const override { return inner_->AllWeights(); }

  int64_t rows_max_ = std::numeric_limits<int64_t>::max();
  int nan_at_ = -1;  // calls are counted from 1
  int infinite_gradient_at_ = -1;

 private:
  std::shared_ptr<const Model> inner_;
  mutable int calls_ = 0;
};

class TrainerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    at::set_num_threads(1);
    model_ = LoadModel({});
  }
  static void TearDownTestSuite() { model_.reset(); }

  /// The small model with weights from one seed.
  static std::shared_ptr<Model> LoadModel(LoadOptions options) {
    const TempFolder folder;
    WriteSmallConfig(folder.path());
    options.init_seed = 3;
    Result<std::shared_ptr<Model>> loaded = Model::Load(folder.path(), options);
    EXPECT_TRUE(loaded.ok()) << loaded.status();
    return loaded.ok() ? *loaded : nullptr;
  }

  void SetUp() override {
    RandomStream stream(17);
    for (int i = 0; i < 12; ++i) {
      TokenRow row;
      const size_t length = 6 + stream.Below(10);
      for (size_t t = 0; t < length; ++t) {
        row.ids.push_back(static_cast<int32_t>(3 + stream.Below(40)));
        row.labels.push_back(t < 3 ? kNoLabel : row.ids.back());
      }
      rows_.push_back(std::move(row));
    }
  }

  static AdapterState Fresh() {
    AdapterSpec spec;
    spec.rank = 4;
    spec.alpha = 8;
    spec.target_modules = {"q_proj", "down_proj"};
    const auto sites = MatchSites(spec, model_->sites());
    return *(*FindAdapter("lora"))->Init(spec, *sites, 5);
  }

  TrainInput Input(int64_t steps) const {
    TrainInput input;
    input.rows = rows_;
    input.start = Fresh();
    input.training.local_steps = steps;
    input.training.batch_size = 4;
    input.training.lr = 5e-3;
    input.training.row_order = "file";
    return input;
  }

  TrainOutput Run(TrainInput input) const {
    JobControl control;
    Result<TrainOutput> output = Train(*model_, std::move(input), control);
    EXPECT_TRUE(output.ok()) << output.status();
    return std::move(output).value();
  }

  static void ExpectSameBits(const AdapterState& a, const AdapterState& b) {
    ASSERT_EQ(a.sites.size(), b.sites.size());
    for (size_t i = 0; i < a.sites.size(); ++i) {
      for (const char* name : {"A", "B"}) {
        EXPECT_TRUE(at::equal(a.sites[i].Get(name), b.sites[i].Get(name)))
            << a.sites[i].site.path << " " << name;
      }
    }
  }

  static double Distance(const AdapterState& a, const AdapterState& b) {
    return DistanceBetween(*Lower(a), *Lower(b));
  }

  inline static std::shared_ptr<Model> model_;
  std::vector<TokenRow> rows_;
};

}  // namespace weft::testing
