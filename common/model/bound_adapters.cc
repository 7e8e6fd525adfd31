#include "common/model/bound_adapters.h"

#include <algorithm>
#include <utility>

#include "common/base/check.h"

namespace weft {
namespace {

// One site's adapters; slots are handed out to factors that take gradients.
std::vector<SiteFactors> FactorsOf(size_t site, const AdapterBinding& adapters, bool training,
                                   bool with_gradients, std::vector<at::Tensor>& inputs) {
  std::vector<SiteFactors> found;
  const auto slot_of = [&](const at::Tensor& tensor) -> int64_t {
    if (!with_gradients || !tensor.requires_grad()) return -1;
    inputs.push_back(tensor);
    return static_cast<int64_t>(inputs.size()) - 1;
  };
  for (size_t j = 0; j < adapters.size(); ++j) {
    const Factors& factors = adapters[j][site];
    const LowRank& low_rank = factors.low_rank;
    if (!low_rank.A_RI.defined() || low_rank.A_RI.size(0) == 0) continue;
    SiteFactors one{.A_RI = low_rank.A_RI.detach(), .B_OR = low_rank.B_OR.detach()};
    one.a_slot = slot_of(low_rank.A_RI);
    one.b_slot = slot_of(low_rank.B_OR);
    one.dropout = training ? factors.dropout : 0;
    one.dropout_stream = (uint64_t{j} << 32) | site;
    found.push_back(std::move(one));
  }
  return found;
}

void CheckBinding(const AdapterBinding& adapters, std::span<const LinearSite> sites) {
  for (const AppliedAdapter& adapter : adapters) {
    WEFT_CHECK(adapter.size() == sites.size(), "one entry per site: ", adapter.size(), " of ",
               sites.size());
    for (size_t i = 0; i < sites.size(); ++i) {
      const LowRank& factors = adapter[i].low_rank;
      if (!factors.A_RI.defined()) continue;
      WEFT_CHECK(factors.A_RI.dim() == 2 && factors.B_OR.dim() == 2 &&
                     factors.A_RI.size(1) == sites[i].in && factors.B_OR.size(0) == sites[i].out &&
                     factors.A_RI.size(0) == factors.B_OR.size(1),
                 sites[i].path);
    }
  }
}

}  // namespace

BoundAdapters BindAdapters(const BindTarget& target, const AdapterBinding& adapters,
                           const ForwardOptions& options, bool with_gradients) {
  CheckBinding(adapters, target.sites);
  const ModelWeights& weights = target.weights;
  const auto num_layers = static_cast<int64_t>(weights.layers.size());
  BoundAdapters bound;
  bound.lowest_layer = num_layers;
  for (int64_t i = 0; i < num_layers; ++i) {
    const LayerWeights& layer = weights.layers[static_cast<size_t>(i)];
    const size_t before = bound.inputs.size();
    const auto bind = [&](const ProjectionGroup& group) {
      std::vector<std::vector<SiteFactors>> by_part;
      for (const ProjectionPart& part : group.parts) {
        by_part.push_back(
            FactorsOf(part.site, adapters, options.training, with_gradients, bound.inputs));
      }
      return BindGroup(group, by_part, target.dtype, target.device, options.dropout_seed);
    };
    BoundLayer one{
        .qkv = bind(layer.qkv), .o = bind(layer.o), .up = bind(layer.up), .down = bind(layer.down)};
    bound.layers.push_back(std::move(one));
    if (bound.inputs.size() > before) bound.lowest_layer = std::min(bound.lowest_layer, i);
  }
  bound.num_factor_inputs = bound.inputs.size();
  if (with_gradients && !weights.trainable.empty()) {
    bound.lowest_layer = -1;
    for (const NamedTensor& leaf : weights.trainable) bound.inputs.push_back(leaf.value);
  }
  return bound;
}

std::vector<at::Tensor> GradientsOfInputs(const BoundAdapters& bound, GradientSlots gradients) {
  std::vector<at::Tensor> result = std::move(gradients.slots());
  for (size_t i = 0; i < result.size(); ++i) {
    const at::Tensor& input = bound.inputs[i];
    result[i] = result[i].defined() ? result[i].to(input.options()) : at::zeros_like(input);
  }
  return result;
}

}  // namespace weft
