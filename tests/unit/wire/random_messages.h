#pragma once
// Messages with every field drawn at random within its limits, for round trips and mutations.

#include "common/base/random.h"
#include "common/wire/messages.h"

namespace weft {

inline constexpr size_t kMessageKinds = std::variant_size_v<Message>;

/// A message of the `kind`-th alternative of the variant.
[[nodiscard]] Message RandomMessage(RandomStream& random, size_t kind);

[[nodiscard]] AdapterSpec RandomSpec(RandomStream& random);
[[nodiscard]] std::string RandomName(RandomStream& random);

}  // namespace weft
