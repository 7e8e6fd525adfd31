#include "client/parameters.h"

#include <algorithm>

#include "common/adapters/adapter.h"

namespace weft {
namespace {

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

int64_t ParameterSet::NumElements() const {
  int64_t total = 0;
  for (const at::Tensor& value : values) total += value.numel();
  return total;
}

void ParameterSet::ZeroGradients() {
  for (at::Tensor& gradient : gradients) gradient.zero_();
}

double ParameterSet::GradientNorm() const {
  if (gradients.size() == 1) return at::linalg_vector_norm(gradients[0]).item<double>();
  std::vector<at::Tensor> norms;
  for (const at::Tensor& gradient : gradients) norms.push_back(at::linalg_vector_norm(gradient));
  return at::linalg_vector_norm(at::stack(norms)).item<double>();
}

void ParameterSet::ScaleGradients(double factor) {
  for (at::Tensor& gradient : gradients) gradient.mul_(factor);
}

Result<FlatAdapter> Flatten(const AdapterState& start, at::Device device) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(start.spec.method));
  const std::vector<std::string> trainable = method->Trainable(start.spec);
  FlatAdapter flat;
  flat.state = CloneTo(start, device, at::kFloat);
  int64_t total = 0;
  MapTensors(flat.state.sites, [&](const NamedTensor& tensor) {
    if (Contains(trainable, tensor.name)) total += tensor.value.numel();
    return tensor.value;
  });
  for (const NamedTensor& tensor : flat.state.dense) total += tensor.value.numel();
  const auto options = at::TensorOptions().dtype(at::kFloat).device(device);
  at::Tensor values = at::empty({total}, options);
  at::Tensor gradients = at::zeros({total}, options);
  int64_t begin = 0;
  const auto leaf_of = [&](const at::Tensor& value) {
    const int64_t count = value.numel();
    at::Tensor view = values.narrow(0, begin, count).view(value.sizes());
    view.copy_(value);
    at::Tensor leaf = view.detach().requires_grad_(true);
    leaf.mutable_grad() = gradients.narrow(0, begin, count).view(leaf.sizes());
    begin += count;
    return leaf;
  };
  MapTensors(flat.state.sites, [&](const NamedTensor& tensor) {
    return Contains(trainable, tensor.name) ? leaf_of(tensor.value) : tensor.value;
  });
  for (NamedTensor& tensor : flat.state.dense) tensor.value = leaf_of(tensor.value);
  flat.parameters = {{std::move(values)}, {std::move(gradients)}};
  return flat;
}

Result<ParameterSet> WeightsOf(const Model& model) {
  ParameterSet set;
  for (const NamedTensor& weight : model.TrainableWeights()) {
    at::Tensor leaf = weight.value;
    if (!leaf.grad().defined()) leaf.mutable_grad() = at::zeros_like(leaf.detach());
    set.values.push_back(leaf.detach());
    set.gradients.push_back(leaf.grad());
  }
  if (set.values.empty()) {
    return FailedPrecondition("[train] the model's own weights were loaded frozen");
  }
  return set;
}

}  // namespace weft
