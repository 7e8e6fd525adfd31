#pragma once
// Safetensors files and model folders, mapped into memory: tensors share the mapping, nothing is
// copied. Immutable after opening; any thread. Writing: safetensors_writer.h.

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/formats/safetensors_header.h"

namespace weft {

/// A tensor's description and its bytes (row-major, little-endian; `bytes` keeps the file alive).
/// The bytes need not be aligned to the element size: files of other writers may pad differently.
struct StoredTensor {
  std::string name;
  DType dtype = DType::kFloat32;
  std::vector<int64_t> shape;
  Blob bytes;
};

class SafetensorsFile {
 public:
  /// Errors are ParseSafetensorsHeader's and MappedFile::Open's.
  [[nodiscard]] static Result<SafetensorsFile> Open(const std::filesystem::path& path);
  /// The same for bytes already in memory; `name` stands in errors.
  [[nodiscard]] static Result<SafetensorsFile> Parse(const Blob& bytes, std::string_view name);

  /// In the order of their bytes in the file.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }
  [[nodiscard]] const SafetensorsMetadata& metadata() const { return metadata_; }
  /// Nothing when there is no tensor of that name.
  [[nodiscard]] const StoredTensor* Find(std::string_view name) const;

 private:
  std::vector<StoredTensor> tensors_;
  SafetensorsMetadata metadata_;
  std::unordered_map<std::string, size_t> by_name_;  // looked up only, never iterated
};

/// The weights of an HF model folder: model.safetensors, or the shards that
/// model.safetensors.index.json lists.
class SafetensorsFolder {
 public:
  /// kNotFound when there are no weights or a shard is missing, kInvalidArgument when the index is
  /// no JSON, names a file outside the folder, or says other than the shards; errors name the file.
  [[nodiscard]] static Result<SafetensorsFolder> Open(const std::filesystem::path& folder);

  /// Sorted by name, whatever the sharding.
  [[nodiscard]] const std::vector<StoredTensor>& tensors() const { return tensors_; }
  [[nodiscard]] const StoredTensor* Find(std::string_view name) const;
  /// The weight files, sorted.
  [[nodiscard]] const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  std::vector<StoredTensor> tensors_;
  std::vector<std::filesystem::path> files_;
};

/// The weight files of a model folder without opening them: one file, or the index and its shards.
/// Same errors as SafetensorsFolder::Open for a missing or hostile index.
struct WeightFiles {
  std::filesystem::path index;                // empty: a single file
  std::vector<std::filesystem::path> shards;  // sorted by name
};
[[nodiscard]] Result<WeightFiles> FindWeightFiles(const std::filesystem::path& folder);

}  // namespace weft
