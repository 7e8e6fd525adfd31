#include "common/formats/base_hash.h"

#include <array>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>
#include <sys/stat.h>

#include "common/base/json_depth.h"
#include "common/base/limits.h"
#include "common/crypto/digest.h"
#include "common/formats/config_fields.h"
#include "common/formats/file_io.h"
#include "common/formats/model_config.h"
#include "common/formats/model_layout.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr const char* kCacheFile = "weft-base-hash.json";
constexpr size_t kCacheBytesMax = size_t{4} << 20;
constexpr size_t kDescriptionBytesMax = size_t{16} << 20;

void AddNumber(Sha256& sha, uint64_t number) {
  std::array<std::byte, 8> bytes;
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(number >> (8 * i));
  sha.Update(bytes);
}

void AddText(Sha256& sha, std::string_view text) {
  AddNumber(sha, text.size());
  sha.Update(AsBytes(text));
}

bool IsSha256Hex(std::string_view text) {
  return text.size() == 64 && text.find_first_not_of("0123456789abcdef") == text.npos;
}

// What tells one state of the weight files from another, without reading them.
Result<Json> FileStamps(const WeightFiles& files) {
  std::vector<fs::path> paths = files.shards;
  if (!files.index.empty()) paths.push_back(files.index);
  Json stamps = Json::array();
  for (const fs::path& path : paths) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0) {
      return NotFound(Str("[safetensors] ", path.string(), ": the shard is missing"));
    }
    stamps.push_back({{"name", path.filename().string()},
                      {"bytes", static_cast<int64_t>(info.st_size)},
                      {"mtime_s", static_cast<int64_t>(info.st_mtim.tv_sec)},
                      {"mtime_ns", static_cast<int64_t>(info.st_mtim.tv_nsec)}});
  }
  return stamps;
}

// $XDG_CACHE_HOME/weft or ~/.cache/weft, one file a model folder; empty where neither is known.
fs::path CacheInHome(const fs::path& folder) {
  const auto variable = [](const char* name) {
    const char* const value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  std::error_code error;
  const fs::path absolute = fs::weakly_canonical(folder, error);
  if (error) return {};
  const std::string name =
      Str("base-", Sha256Hex(AsBytes(absolute.string())).substr(0, 32), ".json");
  // The XDG specification wants relative values ignored.
  if (const fs::path xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) {
    return xdg / "weft" / name;
  }
  const fs::path home = variable("HOME");
  return home.is_absolute() ? home / ".cache" / "weft" / name : fs::path();
}

// A cache that is absent, damaged or of other files is no error: the hash is computed again.
std::optional<std::string> ReadCache(const fs::path& path, const Json& stamps) {
  const auto text = ReadFile(path, kCacheBytesMax);
  if (!text.ok()) return std::nullopt;
  const Json json = Json::parse(text.value(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("sha256") || !json["sha256"].is_string()) {
    return std::nullopt;
  }
  if (!json.contains("files") || json["files"] != stamps) return std::nullopt;
  auto hash = json["sha256"].get<std::string>();
  if (!IsSha256Hex(hash)) return std::nullopt;
  return hash;
}

void WriteCache(const fs::path& beside, const fs::path& in_home, const Json& stamps,
                const std::string& hash) {
  // A file name that is not UTF-8 cannot be kept as JSON; then every start computes the hash.
  const std::string text =
      Json{{"files", stamps}, {"sha256", hash}}.dump(1, ' ', false, Json::error_handler_t::replace);
  if (WriteFileAtomically(beside, text).ok() || in_home.empty()) return;
  std::error_code ignored;
  fs::create_directories(in_home.parent_path(), ignored);
  (void)WriteFileAtomically(in_home, text);
}

Result<LinearSite> ParseSite(const Json& json, size_t number, const std::string& where) {
  const std::string site_where = Str(where, ": sites[", number, "]");
  if (!json.is_object()) return InvalidArgument(site_where + ": wanted an object");
  const ConfigFields fields(&json, site_where);
  LinearSite site;
  WEFT_TRY_ASSIGN(site.path, fields.Text("path"));
  if (site.path.empty() || site.path.size() > limits::kNameBytesMax) {
    return fields.Error(
        "path", Str("got ", site.path.size(), " bytes, wanted 1 to ", limits::kNameBytesMax));
  }
  WEFT_TRY_ASSIGN(site.in, fields.Int("in", 1, limits::kDimensionMax));
  WEFT_TRY_ASSIGN(site.out, fields.Int("out", 1, limits::kDimensionMax));
  return site;
}

}  // namespace

std::string HashTensors(std::span<const StoredTensor> sorted_by_name) {
  Sha256 sha;
  sha.Update(AsBytes("weft base model 1\n"));
  AddNumber(sha, sorted_by_name.size());
  for (const StoredTensor& tensor : sorted_by_name) {
    AddText(sha, tensor.name);
    AddText(sha, DTypeName(tensor.dtype));
    AddNumber(sha, tensor.shape.size());
    for (const int64_t dimension : tensor.shape) AddNumber(sha, static_cast<uint64_t>(dimension));
    AddNumber(sha, tensor.bytes.size());
    sha.Update(tensor.bytes.span());
  }
  return sha.FinishHex();
}

Result<std::string> BaseHash(const fs::path& folder) {
  WEFT_TRY_ASSIGN(const WeightFiles files, FindWeightFiles(folder));
  WEFT_TRY_ASSIGN(const Json stamps, FileStamps(files));
  const fs::path beside = folder / kCacheFile;
  const fs::path in_home = CacheInHome(folder);
  if (auto hash = ReadCache(beside, stamps)) return *std::move(hash);
  if (!in_home.empty()) {
    if (auto hash = ReadCache(in_home, stamps)) return *std::move(hash);
  }
  WEFT_TRY_ASSIGN(const SafetensorsFolder weights, SafetensorsFolder::Open(folder));
  std::string hash = HashTensors(weights.tensors());
  WriteCache(beside, in_home, stamps, hash);
  return hash;
}

Result<BaseDescription> DescribeBase(const fs::path& folder) {
  WEFT_TRY_ASSIGN(const ModelConfig config, ReadModelConfig(folder));
  WEFT_TRY_ASSIGN(const SafetensorsFolder weights, SafetensorsFolder::Open(folder));
  WEFT_TRY(CheckTensors(config, weights, folder.string()));
  BaseDescription base{
      .hash = {}, .architecture = config.architecture, .sites = LinearSites(config)};
  for (LinearSite& site : HeadSites(config)) base.sites.push_back(std::move(site));
  WEFT_TRY_ASSIGN(base.hash, BaseHash(folder));
  return base;
}

std::string EncodeBaseDescription(const BaseDescription& base) {
  nlohmann::ordered_json json;
  json["hash"] = base.hash;
  json["architecture"] = base.architecture;
  json["sites"] = nlohmann::ordered_json::array();
  for (const LinearSite& site : base.sites) {
    nlohmann::ordered_json entry;
    entry["path"] = site.path;
    entry["in"] = site.in;
    entry["out"] = site.out;
    json["sites"].push_back(std::move(entry));
  }
  return json.dump(1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<BaseDescription> ParseBaseDescription(std::string_view text, std::string_view file) {
  const std::string where = Str("[base] ", file);
  if (!JsonDepthWithin(text)) {
    return InvalidArgument(Str(where, ": nested deeper than ", limits::kJsonNestingMax, " levels"));
  }
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return InvalidArgument(
        Str(where, ": ", json.is_discarded() ? "is not JSON" : "wanted a JSON object"));
  }
  const ConfigFields fields(&json, where);
  BaseDescription base;
  WEFT_TRY_ASSIGN(base.hash, fields.Text("hash"));
  if (!IsSha256Hex(base.hash)) {
    return fields.Error("hash", "wanted 64 lower-case hexadecimal digits");
  }
  WEFT_TRY_ASSIGN(base.architecture, fields.Text("architecture"));
  if (!json.contains("sites") || !json["sites"].is_array() || json["sites"].empty()) {
    return fields.Error("sites", "wanted a list of linear layers");
  }
  if (json["sites"].size() > limits::kSitesMax) {
    return fields.Error(
        "sites", Str("got ", json["sites"].size(), " layers, wanted at most ", limits::kSitesMax));
  }
  for (const Json& entry : json["sites"]) {
    WEFT_TRY_ASSIGN(LinearSite site, ParseSite(entry, base.sites.size(), where));
    base.sites.push_back(std::move(site));
  }
  return base;
}

Status WriteBaseDescription(const fs::path& path, const BaseDescription& base) {
  return WriteFileAtomically(path, EncodeBaseDescription(base));
}

Result<BaseDescription> ReadBaseDescription(const fs::path& path) {
  WEFT_TRY_ASSIGN(const std::string text, ReadFile(path, kDescriptionBytesMax));
  return ParseBaseDescription(text, path.string());
}

}  // namespace weft
