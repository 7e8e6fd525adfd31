#include "common/adapters/dense.h"

#include <algorithm>

#include "common/adapters/match.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/formats/path_regex.h"

namespace weft {
namespace {

constexpr double kDeviation = 0.02;

// PEFT's rule: the module itself or anything below it, wherever it stands.
Result<bool> Covers(const std::string& module, const std::string& path) {
  WEFT_TRY_ASSIGN(const PathRegex regex, PathRegex::Compile("(^|.*\\.)" + module + "($|\\..*)"));
  return regex.MatchStart(path);
}

Status CheckModules(const AdapterSpec& spec, std::span<const LinearSite> base_sites) {
  for (const std::string& module : spec.modules_to_save) {
    bool found = false;
    for (const LinearSite& site : base_sites) {
      WEFT_TRY_ASSIGN(const bool covered, Covers(module, site.path));
      if (covered && !IsHeadPath(site.path)) {
        return InvalidArgument(Str("[adapter] modules_to_save \"", module, "\" covers ", site.path,
                                   ": only a classification head is trained whole; adapt this "
                                   "layer by naming it in target_modules"));
      }
      found = found || covered;
    }
    if (!found) {
      return InvalidArgument(Str("[adapter] modules_to_save \"", module, "\" covers no layer; ",
                                 !base_sites.empty() && IsHeadPath(base_sites.back().path)
                                     ? "the head is called classifier"
                                     : "this base has no classification head"));
    }
  }
  return OkStatus();
}

}  // namespace

Result<std::vector<TensorLayout>> DenseLayout(const AdapterSpec& spec,
                                              std::span<const LinearSite> base_sites) {
  std::vector<TensorLayout> layout;
  if (spec.modules_to_save.empty()) {
    if (spec.labels.empty()) return layout;
    return InvalidArgument(
        "[adapter] labels name classes, but modules_to_save names no head to tell them apart; name "
        "\"classifier\"");
  }
  WEFT_TRY(CheckModules(spec, base_sites));
  if (spec.labels.size() < 2) {
    return InvalidArgument(
        Str("[adapter] modules_to_save trains a classification head, labels "
            "names ",
            spec.labels.size(), " classes, wanted at least two"));
  }
  const auto labels = static_cast<int64_t>(spec.labels.size());
  for (const LinearSite& site : base_sites) {
    bool covered = false;
    for (const std::string& module : spec.modules_to_save) {
      WEFT_TRY_ASSIGN(const bool one, Covers(module, site.path));
      covered = covered || one;
    }
    if (!covered) continue;
    const int64_t out = site.path == base_sites.back().path ? labels : site.out;
    layout.push_back({site.path + ".bias", {out}});
    layout.push_back({site.path + ".weight", {out, site.in}});
  }
  return layout;
}

Result<std::vector<NamedTensor>> FreshDense(const AdapterSpec& spec,
                                            std::span<const LinearSite> base_sites, uint64_t seed) {
  WEFT_TRY_ASSIGN(const std::vector<TensorLayout> layout, DenseLayout(spec, base_sites));
  std::vector<NamedTensor> dense;
  for (const TensorLayout& tensor : layout) {
    at::Tensor value = at::zeros(tensor.shape, at::kFloat);
    if (tensor.shape.size() == 2) {
      RandomStream stream = RandomStream::Derive(seed, {"head-init", tensor.name});
      float* const data = value.data_ptr<float>();
      for (int64_t i = 0; i < value.numel(); ++i) {
        data[i] = static_cast<float>(kDeviation * stream.Normal());
      }
    }
    dense.push_back({tensor.name, std::move(value)});
  }
  return dense;
}

}  // namespace weft
