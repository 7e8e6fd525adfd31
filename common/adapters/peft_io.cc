#include "common/adapters/peft_io.h"

#include <algorithm>
#include <map>
#include <set>

#include "common/adapters/dense.h"
#include "common/adapters/match.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/formats/file_io.h"
#include "common/formats/path_regex.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "common/tensor/dtype_map.h"
#include "common/tensor/guard.h"

// Shape legend: R rank, I in, O out.

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "base_model.model.";
constexpr std::string_view kConfigFile = "adapter_config.json";
constexpr std::string_view kWeightsFile = "adapter_model.safetensors";
constexpr size_t kConfigBytesMax = size_t{16} << 20;

std::string FactorName(std::string_view path, std::string_view factor) {
  return Str(kPrefix, path, ".lora_", factor, ".weight");
}

// "…q_proj.lora_A.weight" → {path, 'A'}; PEFT's own state dictionaries say "lora_A.default.weight".
struct FactorKey {
  std::string path;
  char factor = 0;
};
std::optional<FactorKey> ParseFactorName(std::string_view name) {
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  for (const std::string_view ending : {".weight", ".default.weight"}) {
    if (!name.ends_with(ending)) continue;
    const std::string_view head = name.substr(0, name.size() - ending.size());
    for (const char factor : {'A', 'B'}) {
      const std::string middle = std::string(".lora_") + factor;
      if (head.ends_with(middle)) {
        return FactorKey{std::string(head.substr(0, head.size() - middle.size())), factor};
      }
    }
  }
  return std::nullopt;
}

struct FoundFactors {
  const StoredTensor* A = nullptr;
  const StoredTensor* B = nullptr;
};

// Paths compare piecewise, numbers as numbers: layers.2 before layers.10.
struct PathOrder {
  bool operator()(const std::string& a, const std::string& b) const {
    size_t i = 0;
    size_t j = 0;
    while (i < a.size() && j < b.size()) {
      const auto digits = [](const std::string& text, size_t at) {
        size_t end = at;
        while (end < text.size() && text[end] >= '0' && text[end] <= '9') ++end;
        return end - at;
      };
      const size_t di = digits(a, i);
      const size_t dj = digits(b, j);
      if (di > 0 && dj > 0) {
        if (di != dj) return di < dj;
        if (const int order = a.compare(i, di, b, j, dj); order != 0) return order < 0;
        i += di;
        j += dj;
      } else {
        if (a[i] != b[j]) return a[i] < b[j];
        ++i;
        ++j;
      }
    }
    return a.size() - i < b.size() - j;
  }
};

class FolderReader {
 public:
  FolderReader(const fs::path& folder, std::span<const LinearSite> base_sites)
      : file_((folder / kWeightsFile).string()), base_sites_(base_sites) {}

  Result<AdapterState> Run(const AdapterSpec& spec) {
    spec_ = &spec;
    WEFT_TRY_ASSIGN(const SafetensorsFile file, Open());
    WEFT_TRY(Sort(file));
    AdapterState state;
    state.spec = spec;
    WEFT_TRY_ASSIGN(const std::vector<LinearSite> sites, Sites());
    for (const LinearSite& site : sites) {
      WEFT_TRY_ASSIGN(SiteState read, ReadSite(site));
      state.sites.push_back(std::move(read));
    }
    for (const StoredTensor* tensor : dense_) {
      WEFT_TRY_ASSIGN(at::Tensor value, ToFloat(*tensor));
      state.dense.push_back({tensor->name.substr(kPrefix.size()), std::move(value)});
    }
    NumberClasses(state);
    return state;
  }

 private:
  Status Wrong(const std::string& what) const {
    return InvalidArgument(Str("[peft] ", file_, ": ", what));
  }

  // PEFT keeps no names of classes, but the head has a row for each.
  static void NumberClasses(AdapterState& state) {
    if (!state.spec.labels.empty() || state.dense.empty()) return;
    const NamedTensor& output = state.dense.back();
    if (!IsHeadPath(output.name) || output.value.dim() == 0) return;
    for (int64_t i = 0; i < std::min(output.value.size(0), limits::kLabelsMax); ++i) {
      state.spec.labels.push_back(std::to_string(i));
    }
  }

  Result<SafetensorsFile> Open() const {
    const fs::path bin = fs::path(file_).parent_path() / "adapter_model.bin";
    if (std::error_code none; !fs::exists(file_, none) && fs::exists(bin, none)) {
      return NotFound(Str("[peft] ", file_, " is missing; ", bin.string(),
                          " is a Python pickle, which is not read: save it again with PEFT's "
                          "save_pretrained(safe_serialization=True)"));
    }
    return SafetensorsFile::Open(file_);
  }

  // Puts every tensor of the file where it belongs, or names the one that belongs nowhere.
  Status Sort(const SafetensorsFile& file) {
    for (const StoredTensor& tensor : file.tensors()) {
      if (!IsFloating(tensor.dtype)) {
        return Wrong(Str(tensor.name, ": element type ", DTypeName(tensor.dtype),
                         ", wanted a floating-point type"));
      }
      if (const auto key = ParseFactorName(tensor.name)) {
        FoundFactors& found = factors_[key->path];
        const StoredTensor*& slot = key->factor == 'A' ? found.A : found.B;
        if (slot != nullptr) return Wrong(slot->name + " and " + tensor.name + " are the same");
        slot = &tensor;
        continue;
      }
      if (tensor.name.find("lora_") != std::string::npos) {
        return Wrong(tensor.name +
                     ": no factor of a plain LoRA on a linear layer (wanted "
                     "….lora_A.weight or ….lora_B.weight)");
      }
      WEFT_TRY_ASSIGN(const bool saved, IsSavedModule(tensor.name));
      if (!saved)
        return Wrong(tensor.name + ": belongs to no adapted layer and no modules_to_save");
      dense_.push_back(&tensor);
    }
    if (factors_.empty()) return Wrong("holds no LoRA factors");
    WEFT_TRY(CheckSavedModulesAreThere());
    std::sort(dense_.begin(), dense_.end(), [](const StoredTensor* a, const StoredTensor* b) {
      return PathOrder()(a->name, b->name);
    });
    return OkStatus();
  }

  static Result<bool> BelongsTo(const std::string& module, const std::string& name) {
    if (!name.starts_with(kPrefix)) return false;
    WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile("(^|.*\\.)" + module + "($|\\..*)"));
    return regex.MatchStart(name.substr(kPrefix.size()));
  }

  Result<bool> IsSavedModule(const std::string& name) const {
    for (const std::string& module : spec_->modules_to_save) {
      WEFT_TRY_ASSIGN(const bool matched, BelongsTo(module, name));
      if (matched) return true;
    }
    return false;
  }

  // A module that is named and not stored would silently be the base model's.
  Status CheckSavedModulesAreThere() const {
    for (const std::string& module : spec_->modules_to_save) {
      bool found = false;
      for (const StoredTensor* tensor : dense_) {
        WEFT_TRY_ASSIGN(const bool matched, BelongsTo(module, tensor->name));
        found = found || matched;
      }
      if (!found) {
        return Wrong(Str("holds no tensor of \"", module, "\", which modules_to_save in ",
                         kConfigFile, " names"));
      }
    }
    return OkStatus();
  }

  Result<std::vector<LinearSite>> Sites() const {
    // PEFT builds what the configuration chooses and passes over other tensors; here they are an
    // error, for they would silently change what the adapter computes.
    for (const auto& [path, found] : factors_) {
      WEFT_TRY_ASSIGN(const bool chosen, Chooses(*spec_, path));
      if (!chosen) {
        return Wrong(Str((found.A != nullptr ? found.A : found.B)->name, ": the targets in ",
                         kConfigFile, " do not choose this layer"));
      }
    }
    return base_sites_.empty() ? SitesOfTensors() : SitesOfBase();
  }

  Result<std::vector<LinearSite>> SitesOfTensors() const {
    std::vector<LinearSite> sites;
    for (const auto& [path, found] : factors_) {
      WEFT_TRY(CheckPair(path, found));
      sites.push_back({path, found.A->shape[1], found.B->shape[0]});
    }
    return sites;
  }

  Result<std::vector<LinearSite>> SitesOfBase() const {
    std::vector<LinearSite> sites;
    std::set<std::string, PathOrder> known;
    for (const LinearSite& site : base_sites_) {
      known.insert(site.path);
      WEFT_TRY_ASSIGN(const bool chosen, Chooses(*spec_, site.path));
      if (chosen) sites.push_back(site);
    }
    for (const auto& [path, found] : factors_) {
      if (!known.contains(path)) {
        return Wrong(Str((found.A != nullptr ? found.A : found.B)->name,
                         ": the base model has no linear layer ", path,
                         "; was the adapter made for another model?"));
      }
    }
    return sites;
  }

  Status CheckPair(const std::string& path, const FoundFactors& found) const {
    for (const auto& [tensor, factor] : {std::pair(found.A, "A"), std::pair(found.B, "B")}) {
      if (tensor == nullptr) return Wrong(FactorName(path, factor) + " is missing");
      if (tensor->shape.size() != 2 || tensor->shape[0] < 1 || tensor->shape[1] < 1) {
        return Wrong(Str(tensor->name, ": shape ", ShapeText(tensor->shape), ", wanted a matrix"));
      }
    }
    return OkStatus();
  }

  Result<SiteState> ReadSite(const LinearSite& site) const {
    const auto it = factors_.find(site.path);
    const FoundFactors found = it == factors_.end() ? FoundFactors{} : it->second;
    WEFT_TRY(CheckPair(site.path, found));
    const int64_t rank = RankFor(*spec_, site.path);
    WEFT_TRY(CheckShape(*found.A, {rank, site.in}));
    WEFT_TRY(CheckShape(*found.B, {site.out, rank}));
    WEFT_TRY_ASSIGN(at::Tensor A_RI, ToFloat(*found.A));
    WEFT_TRY_ASSIGN(at::Tensor B_OR, ToFloat(*found.B));
    return SiteState{site, {{"A", std::move(A_RI)}, {"B", std::move(B_OR)}}};
  }

  Status CheckShape(const StoredTensor& tensor, const std::vector<int64_t>& wanted) const {
    if (tensor.shape == wanted) return OkStatus();
    return Wrong(Str(tensor.name, ": shape ", ShapeText(tensor.shape), ", wanted ",
                     ShapeText(wanted), " by the rank in ", kConfigFile, " and the layer's size"));
  }

  Result<at::Tensor> ToFloat(const StoredTensor& tensor) const {
    return Guarded("[peft] " + file_, [&]() -> Result<at::Tensor> {
      at::Tensor value = TensorOver(tensor.bytes, tensor.dtype, tensor.shape);
      value = value.to(at::kCPU, at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
      if (!at::isfinite(value).all().item<bool>()) {
        return Wrong(tensor.name + ": holds NaN or infinite numbers");
      }
      return value;
    });
  }

  std::string file_;
  std::span<const LinearSite> base_sites_;
  const AdapterSpec* spec_ = nullptr;
  std::map<std::string, FoundFactors, PathOrder> factors_;
  std::vector<const StoredTensor*> dense_;
};

int64_t MostCommonRank(const LowRankAdapter& factors) {
  std::map<int64_t, size_t> counts;
  for (const LowRankSite& site : factors) ++counts[site.factors.A_RI.size(0)];
  int64_t best = 1;
  size_t most = 0;
  for (const auto& [rank, count] : counts) {
    if (count > most) {
      best = rank;
      most = count;
    }
  }
  return best;
}

// PEFT stores "all-linear" as the names it stood for, so that other readers understand it.
void ExpandAllLinear(const AdapterState& state, AdapterSpec& spec) {
  if (spec.target_modules != std::vector<std::string>{"all-linear"}) return;
  std::set<std::string> names;
  for (const SiteState& site : state.sites) {
    names.insert(site.site.path.substr(site.site.path.rfind('.') + 1));
  }
  spec.target_modules.assign(names.begin(), names.end());
}

Status WriteLora(const AdapterState& state, const fs::path& folder,
                 const PeftWriteOptions& options) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) return InvalidArgument(Str("[peft] ", folder.string(), ": ", error.message()));
  std::vector<at::Tensor> kept;
  std::vector<TensorToWrite> tensors;
  const auto add = [&](std::string name, const at::Tensor& value) {
    kept.push_back(value.detach().to(at::kCPU, at::kFloat).contiguous());
    tensors.push_back(
        {std::move(name), DType::kFloat32, kept.back().sizes().vec(), BytesOf(kept.back())});
  };
  for (const SiteState& site : state.sites) {
    add(FactorName(site.site.path, "A"), site.Get("A"));
    add(FactorName(site.site.path, "B"), site.Get("B"));
  }
  for (const NamedTensor& tensor : state.dense) {
    add(std::string(kPrefix) + tensor.name, tensor.value);
  }
  WEFT_TRY(WriteSafetensors(folder / kWeightsFile, tensors, {{"format", "pt"}}));
  PeftConfig config;
  config.spec = state.spec;
  if (!state.spec.labels.empty()) config.task_type = "SEQ_CLS";
  config.base_model = options.base_model;
  config.fan_in_fan_out = options.fan_in_fan_out;
  ExpandAllLinear(state, config.spec);
  return WriteFileAtomically(folder / kConfigFile, PeftConfigText(config));
}

}  // namespace

Result<PeftConfig> ReadPeftConfig(const fs::path& folder) {
  const fs::path path = folder / kConfigFile;
  WEFT_TRY_ASSIGN(const std::string text, ReadFile(path, kConfigBytesMax));
  WEFT_TRY_ASSIGN(PeftConfig config, ParsePeftConfig(text, path.string()));
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(config.spec.method));
  WEFT_TRY(method->CheckSpec(config.spec).Within(path.string()));
  return config;
}

Result<PeftFolder> ReadPeft(const fs::path& folder, std::span<const LinearSite> base_sites) {
  PeftFolder read;
  WEFT_TRY_ASSIGN(read.config, ReadPeftConfig(folder));
  WEFT_TRY_ASSIGN(read.state, FolderReader(folder, base_sites).Run(read.config.spec));
  return read;
}

AdapterState LoraFromFactors(const AdapterSpec& spec, const LowRankAdapter& factors) {
  AdapterState state;
  state.spec = spec;
  state.spec.method = "lora";
  state.spec.rslora = false;
  state.spec.rank = MostCommonRank(factors);
  state.spec.alpha = static_cast<double>(state.spec.rank);
  state.spec.rank_pattern.clear();
  state.spec.alpha_pattern.clear();
  std::erase_if(state.spec.options,
                [](const auto& option) { return option.first != kExcludeRegexOption; });
  for (const LowRankSite& site : factors) {
    const int64_t rank = site.factors.A_RI.size(0);
    if (rank != state.spec.rank) {
      state.spec.rank_pattern.emplace_back(site.site.path, rank);
      state.spec.alpha_pattern.emplace_back(site.site.path, static_cast<double>(rank));
    }
    state.sites.push_back({site.site, {{"A", site.factors.A_RI}, {"B", site.factors.B_OR}}});
  }
  return state;
}

Status WritePeft(const AdapterState& state, const fs::path& folder,
                 const PeftWriteOptions& options) {
  return Guarded("[peft] " + folder.string(), [&]() -> Status {
    if (state.spec.method == "lora") return WriteLora(state, folder, options);
    WEFT_TRY_ASSIGN(const LowRankAdapter factors, Lower(state));
    AdapterState lora = LoraFromFactors(state.spec, factors);
    lora.dense = state.dense;
    return WriteLora(lora, folder, options);
  });
}

}  // namespace weft
