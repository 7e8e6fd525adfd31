#include "common/model/base_weights.h"

#include <memory>

#include "common/base/str.h"
#include "common/formats/model_config.h"
#include "common/formats/model_layout.h"
#include "common/formats/safetensors.h"
#include "common/tensor/dtype_map.h"

namespace weft {

Result<WeightOf> BaseWeights(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(const ModelConfig config, ReadModelConfig(folder));
  WEFT_TRY_ASSIGN(SafetensorsFolder opened, SafetensorsFolder::Open(folder));
  const auto files = std::make_shared<const SafetensorsFolder>(std::move(opened));
  WEFT_TRY(CheckTensors(config, *files, folder.string()));
  const bool transposed = config.family == ModelFamily::kGpt2;
  return WeightOf([=, name = folder.string()](const LinearSite& site) -> Result<at::Tensor> {
    const StoredTensor* stored = FindWeight(config, *files, site.path + ".weight");
    if (stored == nullptr || stored->shape.size() != 2) {
      return NotFound(Str("[model] ", name, " holds no matrix ", site.path, ".weight"));
    }
    const at::Tensor value = TensorOver(stored->bytes, stored->dtype, stored->shape);
    const at::Tensor W_OI = (transposed ? value.t() : value).to(at::kFloat).contiguous();
    if (W_OI.size(0) != site.out || W_OI.size(1) != site.in) {
      return InvalidArgument(Str("[model] ", name, ": ", site.path, " is ", W_OI.size(0), "×",
                                 W_OI.size(1), " (out×in), wanted ", site.out, "×", site.in));
    }
    return W_OI;
  });
}

}  // namespace weft
