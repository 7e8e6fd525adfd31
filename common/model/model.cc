#include "common/model/model.h"

#include <utility>

#include "common/base/str.h"
#include "common/model/decoder.h"
#include "common/model/encoder.h"
#include "common/model/weights.h"
#include "common/tensor/guard.h"

namespace weft {

Result<std::shared_ptr<Model>> Model::Load(const std::filesystem::path& folder,
                                           const LoadOptions& options) {
  if (options.trainable && options.dtype != at::kFloat && options.dtype != at::kDouble) {
    return InvalidArgument(Str("[model] ", folder.string(), ": training all weights computes in ",
                               "float32, got ", c10::toString(options.dtype),
                               "; leave --dtype out or train an adapter"));
  }
  return Guarded("[model]", [&]() -> Result<std::shared_ptr<Model>> {
    WEFT_TRY_ASSIGN(ModelConfig config, ReadModelConfig(folder));
    WEFT_TRY_ASSIGN(ModelWeights weights, LoadWeights(folder, config, options));
    std::shared_ptr<Model> model;
    if (config.is_encoder()) {
      model = std::make_shared<Encoder>(std::move(config), std::move(weights), options.device,
                                        options.dtype);
    } else {
      model = std::make_shared<Decoder>(std::move(config), std::move(weights), options.device,
                                        options.dtype);
    }
    return model;
  });
}

}  // namespace weft
