#pragma once
// The one way in which a forward pass of ours becomes a node of autograd: what it kept lies in a
// closure until the backward pass has run, which it does once.

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "common/tensor/torch.h"

namespace weft {

/// From the gradient of the output to those of the inputs, in their order.
using TapeBackward = std::function<std::vector<at::Tensor>(const at::Tensor& gradient)>;

/// Makes `output` a function of `inputs`. What `backward` holds is let go of once it has run, or
/// the graph is freed. `name` is the node's, for people who look at a graph.
void AttachBackward(const at::Tensor& output, const std::vector<at::Tensor>& inputs,
                    std::string name, TapeBackward backward);

}  // namespace weft
