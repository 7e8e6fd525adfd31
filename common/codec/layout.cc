#include "common/codec/layout.h"

#include <algorithm>

#include "common/adapters/adapter.h"
#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"

namespace weft {
namespace {

std::string ShapeText(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += Str(i == 0 ? "" : "×", shape[i]);
  return text + "]";
}

Status CheckTensor(const BlockTensor& got, const TensorLayout& wanted, size_t site, DType dtype) {
  if (got.name != wanted.name) {
    return InvalidArgument(
        Str("tensor \"", got.name, "\" stands where \"", wanted.name, "\" is wanted"));
  }
  if (got.shape != wanted.shape) {
    return InvalidArgument(
        Str(got.name, " is ", ShapeText(got.shape), ", the plan says ", ShapeText(wanted.shape)));
  }
  if (got.shared_with.value_or(site) != wanted.owner) {
    return InvalidArgument(Str(got.name, " is that of site ", got.shared_with.value_or(site),
                               ", its method says site ", wanted.owner));
  }
  if (got.dtype != dtype) {
    return InvalidArgument(
        Str(got.name, " is ", DTypeName(got.dtype), ", the codec stores ", DTypeName(dtype)));
  }
  return OkStatus();
}

Status CheckSite(const BlockSite& got, const LinearSite& wanted, const SiteLayout& layout,
                 size_t site, DType dtype) {
  if (got.site.in != wanted.in || got.site.out != wanted.out) {
    return InvalidArgument(Str("is ", got.site.out, "×", got.site.in, " (out×in), the model says ",
                               wanted.out, "×", wanted.in));
  }
  for (size_t t = 0; t < std::min(layout.size(), got.tensors.size()); ++t) {
    WEFT_TRY(CheckTensor(got.tensors[t], layout[t], site, dtype));
  }
  if (got.tensors.size() < layout.size()) {
    return InvalidArgument(Str("tensor \"", layout[got.tensors.size()].name, "\" is missing"));
  }
  if (got.tensors.size() > layout.size()) {
    return InvalidArgument(Str("tensor \"", got.tensors[layout.size()].name, "\" is one too many"));
  }
  return OkStatus();
}

Status CheckDense(const BlockSection& section, std::span<const TensorLayout> wanted, DType dtype) {
  const std::vector<BlockTensor>& got = section.dense;
  for (size_t i = 0; i < std::min(got.size(), wanted.size()); ++i) {
    WEFT_TRY(CheckTensor(got[i], wanted[i], 0, dtype).Within("dense"));
  }
  if (got.size() > wanted.size()) {
    return InvalidArgument(
        Str("dense tensor ", got[wanted.size()].name,
            wanted.empty() ? ": the plan trains no whole modules" : ": is one too many"));
  }
  if (got.size() < wanted.size()) {
    return InvalidArgument(Str("dense tensor ", wanted[got.size()].name, ": is missing"));
  }
  return OkStatus();
}

// As long as an entry of that name and number of dimensions gets. Of no bytes, as only a packed
// tensor may be.
BlockTensor LongestEntry(const TensorLayout& layout) {
  BlockTensor entry;
  entry.name = layout.name;
  entry.shape.assign(layout.shape.size(), 1);
  entry.packing = "sparse-of-a-longer-name-than-any";
  return entry;
}

}  // namespace

Result<uint64_t> ManifestBytesMax(const AdapterSpec& spec, std::span<const LinearSite> sites,
                                  std::span<const TensorLayout> dense) {
  // Fields that a later version adds, and Cap'n Proto's freedom in laying out the same content.
  constexpr uint64_t kRoom = 4096;
  constexpr uint64_t kSpread = 2;
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY_ASSIGN(const std::vector<SiteLayout> layout, method->Layout(spec, sites));
  // Each entry has two names, a shape and a few words; of very many, the general limit will do.
  constexpr uint64_t kEntry = 2 * limits::kNameBytesMax;
  uint64_t entries = sites.size() + dense.size();
  for (const SiteLayout& site : layout) entries += site.size();
  if (entries * kEntry > limits::kManifestBytesMax / 2) return uint64_t{limits::kManifestBytesMax};
  TensorBlock block;
  BlockSection& section = block.sections.emplace_back();
  section.role = kAdapterRole;
  section.spec = spec;
  for (size_t i = 0; i < sites.size(); ++i) {
    BlockSite& site = section.sites.emplace_back();
    site.site = sites[i];
    for (const TensorLayout& tensor : layout[i]) site.tensors.push_back(LongestEntry(tensor));
  }
  for (const TensorLayout& tensor : dense) section.dense.push_back(LongestEntry(tensor));
  const uint64_t longest = EncodeTensorBlock(block).size();
  return std::min<uint64_t>(kSpread * longest + kRoom, limits::kManifestBytesMax);
}

Status CheckLayout(const BlockSection& section, const AdapterSpec& spec,
                   std::span<const LinearSite> sites, DType dtype,
                   std::span<const TensorLayout> dense) {
  WEFT_TRY_ASSIGN(const Adapter* method, FindAdapter(spec.method));
  WEFT_TRY_ASSIGN(const std::vector<SiteLayout> layout, method->Layout(spec, sites));
  for (size_t i = 0; i < std::min(sites.size(), section.sites.size()); ++i) {
    const BlockSite& got = section.sites[i];
    if (got.site.path != sites[i].path) {
      return InvalidArgument(
          Str("site ", i, " is ", got.site.path, ", the plan says ", sites[i].path));
    }
    WEFT_TRY(CheckSite(got, sites[i], layout[i], i, dtype).Within(Str("site ", got.site.path)));
  }
  if (section.sites.size() != sites.size()) {
    const bool few = section.sites.size() < sites.size();
    return InvalidArgument(
        Str("got ", section.sites.size(), " sites, wanted ", sites.size(), ": ",
            few ? sites[section.sites.size()].path : section.sites[sites.size()].site.path,
            few ? " is missing" : " is one too many"));
  }
  return CheckDense(section, dense, dtype);
}

std::vector<TensorLayout> DenseOf(const BlockSection& section) {
  std::vector<TensorLayout> layout;
  for (const BlockTensor& tensor : section.dense) layout.push_back({tensor.name, tensor.shape});
  return layout;
}

Status CheckSameSpec(const AdapterSpec& got, const AdapterSpec& wanted) {
  const auto differs = [](std::string_view field, const auto& g, const auto& w) {
    return InvalidArgument(Str("adapter ", field, " is ", g, ", the plan says ", w));
  };
  if (got.method != wanted.method) return differs("method", got.method, wanted.method);
  if (got.rank != wanted.rank) return differs("rank", got.rank, wanted.rank);
  // Written so that a NaN differs from every plan.
  if (!(got.alpha == wanted.alpha)) return differs("alpha", got.alpha, wanted.alpha);
  if (got.rslora != wanted.rslora) return differs("rslora", got.rslora, wanted.rslora);
  if (!(got.dropout == wanted.dropout)) return differs("dropout", got.dropout, wanted.dropout);
  // Of one layout but another seed, an update would be read as something it is not.
  for (size_t i = 0; i < std::max(got.options.size(), wanted.options.size()); ++i) {
    const auto text = [i](const AdapterSpec& spec) {
      if (i >= spec.options.size()) return std::string("none");
      return spec.options[i].first + " = " + spec.options[i].second;
    };
    if (text(got) != text(wanted)) return differs("option", text(got), text(wanted));
  }
  if (!(got == wanted)) {
    return InvalidArgument(
        "adapter targets, patterns, saved modules or labels are not those of the plan");
  }
  return OkStatus();
}

}  // namespace weft
