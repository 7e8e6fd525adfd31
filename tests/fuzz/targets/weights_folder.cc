// A model folder's index and one shard: no file outside the folder is reached for, and what opens
// has each tensor that the index lists.

#include <filesystem>

#include "common/base/check.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/temp_folder.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 2);
  const testing::TempFolder folder;
  (void)folder.Write("model.safetensors.index.json", parts[0]);
  (void)folder.Write("a.safetensors", parts[1]);
  const Result<WeightFiles> files = FindWeightFiles(folder.path());
  if (files.ok()) {
    for (const std::filesystem::path& shard : files->shards) {
      WEFT_CHECK(shard.parent_path() == folder.path(), shard.string());
    }
  }
  const Result<SafetensorsFolder> weights = SafetensorsFolder::Open(folder.path());
  if (!weights.ok()) return;
  WEFT_CHECK(files.ok() && weights->files() == files->shards);
  for (size_t i = 1; i < weights->tensors().size(); ++i) {
    WEFT_CHECK(weights->tensors()[i - 1].name < weights->tensors()[i].name);
  }
}

Seeds MakeSeeds() {
  const std::vector<TensorToWrite> tensors = {{"w", DType::kUInt8, {3}, AsBytes("abc")}};
  const std::string shard(EncodeSafetensors(tensors)->view());
  return {Joined({R"({"metadata":{"total_size":3},"weight_map":{"w":"a.safetensors"}})", shard}),
          Joined({R"({"weight_map":{"w":"../a.safetensors"}})", shard}),
          Joined({R"({"weight_map":{"w":"b.safetensors","v":[[["deep"]]]}})", shard}),
          Joined({R"({"weight_map":{}})", ""})};
}

}  // namespace

Target WeightsFolder() {
  return {"weights_folder", Run, MakeSeeds, {"\"weight_map\"", "..", "/", "\"a.safetensors\""}};
}

}  // namespace weft::fuzz
