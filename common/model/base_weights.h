#pragma once
// The weights of a model folder, layer by layer, for methods that look at the base without running
// it (Adapter::BaseChange). Mapped from the file; nothing is loaded. Stateless.

#include <filesystem>

#include "common/adapters/adapter.h"
#include "common/base/result.h"

namespace weft {

/// Those of an HF folder, which is opened when the first layer is asked for: most methods ask for
/// none. Errors name the file. One thread.
[[nodiscard]] WeightOf BaseWeights(const std::filesystem::path& folder);

}  // namespace weft
