#pragma once
// Tensor blocks with everything drawn at random within its limits, for round trips and mutations.

#include "common/base/random.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// Two sections of a few sites each, tensors of every type and of up to three dimensions.
[[nodiscard]] TensorBlock RandomBlock(RandomStream& random);

}  // namespace weft
