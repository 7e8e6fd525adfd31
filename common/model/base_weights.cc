#include "common/model/base_weights.h"

#include <memory>
#include <optional>

#include "common/base/str.h"
#include "common/formats/model_config.h"
#include "common/formats/model_layout.h"
#include "common/formats/safetensors.h"
#include "common/tensor/dtype_map.h"

namespace weft {

namespace {

struct OpenFolder {
  ModelConfig config;
  SafetensorsFolder files;
};

Result<OpenFolder> Open(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(ModelConfig config, ReadModelConfig(folder));
  WEFT_TRY_ASSIGN(SafetensorsFolder files, SafetensorsFolder::Open(folder));
  WEFT_TRY(CheckTensors(config, files, folder.string()));
  return OpenFolder{std::move(config), std::move(files)};
}

Result<at::Tensor> WeightIn(const OpenFolder& open, const LinearSite& site) {
  const StoredTensor* stored = FindWeight(open.config, open.files, site.path + ".weight");
  if (stored == nullptr || stored->shape.size() != 2) {
    return NotFound(Str("holds no matrix ", site.path, ".weight"));
  }
  const at::Tensor value = TensorOver(stored->bytes, stored->dtype, stored->shape);
  const bool transposed = open.config.family == ModelFamily::kGpt2;
  const at::Tensor W_OI = (transposed ? value.t() : value).to(at::kFloat).contiguous();
  if (W_OI.size(0) == site.out && W_OI.size(1) == site.in) return W_OI;
  return InvalidArgument(Str(site.path, " is ", W_OI.size(0), "×", W_OI.size(1),
                             " (out×in), wanted ", site.out, "×", site.in));
}

}  // namespace

WeightOf BaseWeights(const std::filesystem::path& folder) {
  const auto opened = std::make_shared<std::optional<OpenFolder>>();
  return [opened, folder](const LinearSite& site) -> Result<at::Tensor> {
    if (!*opened) {
      WEFT_TRY_ASSIGN(*opened, Open(folder));
    }
    Result<at::Tensor> weight = WeightIn(**opened, site);
    WEFT_TRY(weight.status().Within("[model] " + folder.string()));
    return weight;
  };
}

}  // namespace weft
