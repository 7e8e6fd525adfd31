#include "cli/model_folder.h"

#include <array>

#include "cli/out_folder.h"
#include "common/base/str.h"
#include "common/formats/model_layout.h"
#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"

namespace weft::cli {
namespace {

namespace fs = std::filesystem;

constexpr std::array kCompanions = {"config.json",         "generation_config.json",
                                    "tokenizer.json",      "tokenizer_config.json",
                                    "tokenizer.model",     "special_tokens_map.json",
                                    "chat_template.jinja", "added_tokens.json",
                                    "vocab.json",          "merges.txt"};

}  // namespace

Result<std::vector<NamedTensor>> StoredWeights(const fs::path& folder, const ModelConfig& config) {
  WEFT_TRY_ASSIGN(const SafetensorsFolder files, SafetensorsFolder::Open(folder));
  WEFT_TRY(CheckTensors(config, files, folder.string()));
  std::vector<NamedTensor> weights;
  for (const ExpectedTensor& expected : ExpectedTensors(config)) {
    const StoredTensor* stored = FindWeight(config, files, expected.name);
    WEFT_CHECK(stored != nullptr, expected.name);
    weights.push_back({expected.name, TensorOver(stored->bytes, stored->dtype, stored->shape)});
  }
  return weights;
}

Status WriteModelFolder(const std::vector<NamedTensor>& weights, const fs::path& source,
                        const fs::path& out) {
  WEFT_TRY(PrepareOutFolder(out, source));
  std::error_code error;
  std::vector<at::Tensor> kept;
  std::vector<TensorToWrite> tensors;
  for (const NamedTensor& weight : weights) {
    const std::optional<DType> dtype = FromTorch(weight.value.scalar_type());
    WEFT_CHECK(dtype.has_value(), weight.name);
    kept.push_back(weight.value.detach().to(at::kCPU).contiguous());
    tensors.push_back({weight.name, *dtype, kept.back().sizes().vec(), BytesOf(kept.back())});
  }
  WEFT_TRY(WriteSafetensors(out / "model.safetensors", tensors, {{"format", "pt"}}));
  for (const char* name : kCompanions) {
    if (!fs::exists(source / name, error)) continue;
    fs::copy_file(source / name, out / name, fs::copy_options::overwrite_existing, error);
    if (error) {
      return InvalidArgument(Str("[model] ", (out / name).string(), ": ", error.message()));
    }
  }
  return OkStatus();
}

}  // namespace weft::cli
