#pragma once
// BoundAdapters: the adapters of one call in the form that a stack of layers needs. Stateless.

#include <span>
#include <vector>

#include "common/model/layer.h"
#include "common/model/model.h"
#include "common/model/weights.h"

namespace weft {

/// The adapters of a call laid side by side for each product, and the tensors that take gradients:
/// first the factors, then the model's trainable weights.
struct BoundAdapters {
  std::vector<BoundLayer> layers;
  std::vector<at::Tensor> inputs;
  size_t num_factor_inputs = 0;
  int64_t lowest_layer = 0;  // below this one nothing takes a gradient
};

/// What the adapters are bound to.
struct BindTarget {
  const ModelWeights& weights;
  std::span<const LinearSite> sites;
  at::ScalarType dtype;
  at::Device device;
};

/// Shapes are checked: the caller has made them from the same sites.
[[nodiscard]] BoundAdapters BindAdapters(const BindTarget& target, const AdapterBinding& adapters,
                                         const ForwardOptions& options, bool with_gradients);

/// Gradients by input as autograd takes them: of the input's type, zero where there is none.
[[nodiscard]] std::vector<at::Tensor> GradientsOfInputs(const BoundAdapters& bound,
                                                        GradientSlots gradients);

}  // namespace weft
