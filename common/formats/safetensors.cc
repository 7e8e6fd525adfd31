#include "common/formats/safetensors.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/json_depth.h"
#include "common/base/limits.h"
#include "common/formats/file_io.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// Tensor name → shard file name, as the index has it.
using WeightMap = std::map<std::string, std::string>;

// A shard must lie in the folder itself: an index may not reach for other files of the machine.
bool IsPlainFileName(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && name.size() <= limits::kNameBytesMax &&
         name.find('/') == std::string::npos && name.find('\\') == std::string::npos &&
         name.find('\0') == std::string::npos;
}

Result<WeightMap> ReadIndex(const fs::path& path) {
  WEFT_TRY_ASSIGN(const std::string text, ReadFile(path, limits::kJsonBytesMax));
  const std::string where = Str("[safetensors] ", path.string(), ": ");
  if (!JsonDepthWithin(text)) {
    return InvalidArgument(Str(where, "nested deeper than ", limits::kJsonNestingMax, " levels"));
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return InvalidArgument(where + "is not JSON");
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object()) {
    return InvalidArgument(where + "wanted an object \"weight_map\" of tensor names and files");
  }
  WeightMap map;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || !IsPlainFileName(file.get_ref<const std::string&>())) {
      return InvalidArgument(Str(where, "weight_map of tensor ", tensor, ": got ",
                                 file.dump(-1, ' ', true).substr(0, 80),
                                 ", wanted the name of a file in this folder"));
    }
    map[tensor] = file.get<std::string>();
  }
  if (map.empty()) return InvalidArgument(where + "weight_map is empty");
  return map;
}

Status NoWeights(const fs::path& folder) {
  std::error_code ignored;
  if (!fs::is_directory(folder, ignored)) {
    return NotFound(Str("[safetensors] ", folder.string(), ": no such model folder"));
  }
  std::string hint;
  for (const char* other : {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.gguf"}) {
    if (fs::exists(folder / other, ignored)) {
      hint = Str(" (there is ", other, ": save the model as safetensors first)");
    }
  }
  return NotFound(Str("[safetensors] ", folder.string(), ": got neither ", kSingleFile, " nor ",
                      kIndexFile, hint));
}

// Each tensor of a shard must be one the index places there.
Status CheckShard(const SafetensorsFile& file, const std::string& shard, const WeightMap& map,
                  const fs::path& folder) {
  for (const StoredTensor& tensor : file.tensors()) {
    const auto found = map.find(tensor.name);
    if (found != map.end() && found->second == shard) continue;
    return InvalidArgument(Str("[safetensors] ", (folder / shard).string(), ": tensor ",
                               tensor.name, ": ", kIndexFile,
                               found == map.end() ? std::string(" does not list it")
                                                  : Str(" says it is in ", found->second)));
  }
  return OkStatus();
}

}  // namespace

Result<SafetensorsFile> SafetensorsFile::Parse(const Blob& bytes, std::string_view name) {
  WEFT_TRY_ASSIGN(SafetensorsHeader header,
                  ParseSafetensorsHeader(bytes.span(), bytes.size(), name));
  SafetensorsFile file;
  file.metadata_ = std::move(header.metadata);
  file.tensors_.reserve(header.tensors.size());
  for (TensorInfo& info : header.tensors) {
    file.by_name_.emplace(info.name, file.tensors_.size());
    file.tensors_.push_back({.name = std::move(info.name),
                             .dtype = info.dtype,
                             .shape = std::move(info.shape),
                             .bytes = bytes.Slice(info.begin, info.end - info.begin)});
  }
  return file;
}

Result<SafetensorsFile> SafetensorsFile::Open(const fs::path& path) {
  WEFT_TRY_ASSIGN(auto mapped, MappedFile::Open(path));
  return Parse(MappedFile::AsBlob(std::move(mapped)), path.string());
}

const StoredTensor* SafetensorsFile::Find(std::string_view name) const {
  const auto found = by_name_.find(std::string(name));
  return found == by_name_.end() ? nullptr : &tensors_[found->second];
}

Result<WeightFiles> FindWeightFiles(const fs::path& folder) {
  std::error_code ignored;
  if (fs::exists(folder / kSingleFile, ignored)) return WeightFiles{{}, {folder / kSingleFile}};
  if (!fs::exists(folder / kIndexFile, ignored)) return NoWeights(folder);
  WeightFiles files{.index = folder / kIndexFile, .shards = {}};
  WEFT_TRY_ASSIGN(const WeightMap map, ReadIndex(files.index));
  std::set<std::string> names;
  for (const auto& [tensor, file] : map) names.insert(file);
  for (const std::string& name : names) files.shards.push_back(folder / name);
  return files;
}

Result<SafetensorsFolder> SafetensorsFolder::Open(const fs::path& path) {
  WEFT_TRY_ASSIGN(const WeightFiles files, FindWeightFiles(path));
  WeightMap map;
  if (!files.index.empty()) {
    WEFT_TRY_ASSIGN(map, ReadIndex(files.index));
  }
  SafetensorsFolder folder;
  folder.files_ = files.shards;
  for (const fs::path& shard : files.shards) {
    Result<SafetensorsFile> file = SafetensorsFile::Open(shard);
    if (!file.ok() && file.status().code() == Code::kNotFound && !files.index.empty()) {
      return NotFound(Str("[safetensors] ", shard.string(), ": the shard is missing, ", kIndexFile,
                          " lists it; fetch the model again"));
    }
    if (!file.ok()) return file.status();
    if (!files.index.empty()) {
      WEFT_TRY(CheckShard(file.value(), shard.filename().string(), map, path));
    }
    const auto& tensors = file.value().tensors();
    folder.tensors_.insert(folder.tensors_.end(), tensors.begin(), tensors.end());
  }
  std::sort(folder.tensors_.begin(), folder.tensors_.end(),
            [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  for (const auto& [tensor, shard] : map) {
    if (folder.Find(tensor) == nullptr) {
      return InvalidArgument(Str("[safetensors] ", (path / shard).string(), ": tensor ", tensor,
                                 " is missing, ", kIndexFile, " says it is there"));
    }
  }
  return folder;
}

const StoredTensor* SafetensorsFolder::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      tensors_.begin(), tensors_.end(), name,
      [](const StoredTensor& tensor, std::string_view wanted) { return tensor.name < wanted; });
  return found == tensors_.end() || found->name != name ? nullptr : &*found;
}

}  // namespace weft
