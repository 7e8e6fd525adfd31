// What every local objective of the registry promises, whatever it minimises.

#include "client/objectives/objective.h"

#include <set>

#include <gtest/gtest.h>

#include "common/base/random.h"

namespace weft {
namespace {

at::Tensor Drawn(at::IntArrayRef shape, uint64_t seed) {
  at::Tensor value = at::empty(shape, at::kFloat);
  RandomStream stream(seed);
  for (int64_t i = 0; i < value.numel(); ++i) {
    value.mutable_data_ptr<float>()[i] = static_cast<float>(stream.Normal());
  }
  return value;
}

// Two parameters as in full training, where they are not one buffer.
struct Parameters {
  std::vector<at::Tensor> values = {Drawn({3, 4}, 1), Drawn({5}, 2)};
  std::vector<at::Tensor> start = {Drawn({3, 4}, 3), Drawn({5}, 4)};
  std::vector<at::Tensor> gradients = {Drawn({3, 4}, 5), Drawn({5}, 6)};

  static std::vector<at::Tensor> Copy(const std::vector<at::Tensor>& tensors) {
    std::vector<at::Tensor> copies;
    for (const at::Tensor& tensor : tensors) copies.push_back(tensor.clone());
    return copies;
  }
};

class ObjectiveConformance : public ::testing::TestWithParam<const Objective*> {
 protected:
  static const Objective& objective() { return *GetParam(); }
  static LocalTraining Training() {
    LocalTraining training;
    training.objective = objective().name();
    return training;
  }
  static void Add(Parameters& p) {
    const std::vector<at::Tensor> none;
    objective().AddGradient(Training(), p.values, objective().NeedsStart() ? p.start : none,
                            p.gradients);
  }
};

TEST_P(ObjectiveConformance, ItIsFoundByItsNameAndTakesTheDefaults) {
  const Result<const Objective*> found = FindObjective(objective().name());
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_EQ(*found, &objective());
  EXPECT_TRUE(objective().Check(Training()).ok());
}

TEST_P(ObjectiveConformance, ItAddsToTheGradientsAndChangesNothingElse) {
  Parameters p;
  const auto values = Parameters::Copy(p.values), start = Parameters::Copy(p.start);
  const auto before = Parameters::Copy(p.gradients);
  Add(p);
  std::vector<at::Tensor> added;
  for (size_t i = 0; i < p.values.size(); ++i) {
    EXPECT_TRUE(at::equal(p.values[i], values[i]));
    EXPECT_TRUE(at::equal(p.start[i], start[i]));
    added.push_back(p.gradients[i] - before[i]);
  }
  // The same on top of other gradients: what was there is kept, not scaled or replaced.
  Parameters zero;
  for (at::Tensor& gradient : zero.gradients) gradient.zero_();
  Add(zero);
  for (size_t i = 0; i < added.size(); ++i) {
    EXPECT_TRUE(at::allclose(added[i], zero.gradients[i], 1e-4, 1e-6));
  }
}

TEST_P(ObjectiveConformance, ARoundStartsWithNoPullAnywhere) {
  // Where nothing has moved yet, only the data say which way to go.
  Parameters p;
  p.start = Parameters::Copy(p.values);
  const auto before = Parameters::Copy(p.gradients);
  Add(p);
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_TRUE(at::allclose(p.gradients[i], before[i], 0, 1e-7));
  }
}

INSTANTIATE_TEST_SUITE_P(Registry, ObjectiveConformance, ::testing::ValuesIn(ObjectiveRegistry()),
                         [](const auto& test) { return std::string(test.param->name()); });

TEST(ObjectiveRegistryTest, NamesAreUniqueAndAnUnknownOneListsThem) {
  std::set<std::string_view> names;
  for (const Objective* objective : ObjectiveRegistry()) {
    EXPECT_TRUE(names.insert(objective->name()).second) << objective->name();
  }
  const Status status = FindObjective("ppo").status();
  EXPECT_EQ(status.code(), Code::kNotFound);
  for (const std::string_view name : names) {
    EXPECT_NE(status.message().find(name), std::string::npos) << status;
  }
}

TEST(FedProxTest, ItsGradientIsThatOfHalfMuTimesTheSquaredDistance) {
  Parameters p;
  for (at::Tensor& gradient : p.gradients) gradient.zero_();
  LocalTraining training;
  training.objective = "fedprox";
  training.fedprox_mu = 0.3;
  (*FindObjective("fedprox"))->AddGradient(training, p.values, p.start, p.gradients);
  // Li et al. 2020, eq. 2, by autograd.
  for (size_t i = 0; i < p.values.size(); ++i) {
    const at::Tensor theta = p.values[i].clone().requires_grad_(true);
    (0.5 * 0.3 * (theta - p.start[i]).square().sum()).backward();
    EXPECT_TRUE(at::allclose(p.gradients[i], theta.grad(), 1e-5, 1e-6));
  }
}

}  // namespace
}  // namespace weft
