#pragma once
// The weights of a model folder, layer by layer, for methods that look at the base without running
// it (Adapter::BaseChange). Mapped from the file; nothing is loaded. Stateless.

#include <filesystem>

#include "common/adapters/adapter.h"
#include "common/base/result.h"

namespace weft {

/// Opens an HF folder. Errors name the file; those of a layer are returned when it is asked for.
[[nodiscard]] Result<WeightOf> BaseWeights(const std::filesystem::path& folder);

}  // namespace weft
