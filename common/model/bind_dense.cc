#include "common/model/bind_dense.h"

#include <algorithm>

#include "common/formats/model_layout.h"
#include "common/formats/safetensors.h"
#include "common/model/bind_adapter.h"

namespace weft {
namespace {

int64_t LabelsOf(const std::string& output, std::span<const NamedTensor> dense, int64_t fallback) {
  for (const NamedTensor& tensor : dense) {
    const bool is_output = tensor.name == output + ".weight" || tensor.name == output + ".bias";
    if (is_output && tensor.value.dim() > 0) return tensor.value.size(0);
  }
  return fallback;
}

}  // namespace

Result<std::vector<NamedTensor>> DenseFor(const Model& model, std::span<const NamedTensor> dense) {
  std::vector<NamedTensor> bound;
  if (dense.empty()) return bound;
  const ModelConfig& config = model.config();
  const std::string output = OutputHeadSite(config).path;
  const std::vector<ExpectedTensor> head =
      HeadTensors(config, LabelsOf(output, dense, static_cast<int64_t>(config.labels.size())));
  for (const NamedTensor& tensor : dense) {
    const auto place = std::find_if(head.begin(), head.end(), [&](const ExpectedTensor& expected) {
      return expected.name == tensor.name;
    });
    if (place == head.end()) {
      return InvalidArgument(
          Str("[adapter] ", tensor.name, " (modules_to_save): ", config.architecture,
              head.empty() ? " has no classification head, and other modules are "
                             "not replaced"
                           : "'s head has no such tensor"));
    }
    if (tensor.value.sizes().vec() != place->shape) {
      return InvalidArgument(Str("[adapter] ", tensor.name, ": is ",
                                 ShapeText(tensor.value.sizes().vec()), ", the model's head wants ",
                                 ShapeText(place->shape), "; it was trained on another model"));
    }
    bound.push_back({tensor.name, tensor.value.to(model.device())});
  }
  return bound;
}

Result<AppliedAdapter> Apply(const Model& model, const AdapterState& state,
                             const Prepared* prepared) {
  WEFT_TRY_ASSIGN(std::vector<Factors> factors, FactorsFor(model, state, prepared));
  AppliedAdapter applied(std::move(factors));
  WEFT_TRY_ASSIGN(applied.dense, DenseFor(model, state.dense));
  return applied;
}

Status CheckHead(const Model& model, const AdapterBinding& adapters) {
  if (model.has_head()) return OkStatus();
  const ModelConfig& config = model.config();
  for (const ExpectedTensor& expected :
       HeadTensors(config, static_cast<int64_t>(config.labels.size()))) {
    bool found = false;
    for (const AppliedAdapter& adapter : adapters) {
      for (const NamedTensor& tensor : adapter.dense) found = found || tensor.name == expected.name;
    }
    if (found) continue;
    return FailedPrecondition(Str("[model] the folder has no classification head (", expected.name,
                                  " is missing) and no adapter brings one; train an adapter with "
                                  "modules_to_save = [\"classifier\"], or name one that was"));
  }
  return OkStatus();
}

}  // namespace weft
