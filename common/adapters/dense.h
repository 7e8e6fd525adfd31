#pragma once
// The dense part of an adapter (PEFT's modules_to_save): the layers of a classification head,
// trained and shipped whole beside the factors. Stateless.

#include <span>
#include <string_view>
#include <vector>

#include "common/adapters/adapter.h"
#include "common/base/result.h"

namespace weft {

/// What the spec trains whole of a base with these layers (its head's last): bias [out] and weight
/// [out×in] of each layer that modules_to_save covers, in the base's order; the output layer has a
/// row for each of the spec's labels. Nothing where modules_to_save is empty. kInvalidArgument: a
/// module that covers no layer or one outside the head, labels without a head or a head without
/// labels.
[[nodiscard]] Result<std::vector<TensorLayout>> DenseLayout(const AdapterSpec& spec,
                                                            std::span<const LinearSite> base_sites);

/// A fresh head: biases 0, weights normal with deviation 0.02 (BERT's initializer_range), drawn
/// from `seed`, the tensor's name and nothing else. Float32 on the CPU.
[[nodiscard]] Result<std::vector<NamedTensor>> FreshDense(const AdapterSpec& spec,
                                                          std::span<const LinearSite> base_sites,
                                                          uint64_t seed);

}  // namespace weft
