#include "common/codec/adapter_block.h"

#include "common/base/str.h"
#include "common/codec/layout.h"
#include "common/codec/precision.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

Result<std::vector<BlockTensor>> EncodeTensors(const std::vector<NamedTensor>& tensors,
                                               const Codec& codec) {
  std::vector<BlockTensor> encoded;
  encoded.reserve(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    WEFT_TRY_ASSIGN(BlockTensor block, codec.Encode(tensor));
    encoded.push_back(std::move(block));
  }
  return encoded;
}

template <typename DecodeOne>
Result<std::vector<NamedTensor>> DecodeTensors(const std::vector<BlockTensor>& tensors,
                                               const DecodeOne& decode) {
  std::vector<NamedTensor> decoded;
  decoded.reserve(tensors.size());
  for (const BlockTensor& tensor : tensors) {
    WEFT_TRY_ASSIGN(at::Tensor value, decode(tensor));
    decoded.push_back({tensor.name, std::move(value)});
  }
  return decoded;
}

template <typename DecodeOne>
Result<AdapterState> DecodeSection(const BlockSection& section, const DecodeOne& decode) {
  return Guarded("[codec]", [&]() -> Result<AdapterState> {
    AdapterState state;
    state.spec = section.spec;
    state.sites.reserve(section.sites.size());
    for (const BlockSite& site : section.sites) {
      Result<std::vector<NamedTensor>> tensors = DecodeTensors(site.tensors, decode);
      if (!tensors.ok()) return tensors.status().Within(Str("[codec] site ", site.site.path));
      state.sites.push_back({site.site, std::move(tensors).value()});
    }
    Result<std::vector<NamedTensor>> dense = DecodeTensors(section.dense, decode);
    if (!dense.ok()) return dense.status().Within("[codec] dense");
    state.dense = std::move(dense).value();
    return state;
  });
}

Result<std::optional<AdapterState>> DecodePart(const TensorBlock& block, const char* role,
                                               const Codec& codec, at::Device device) {
  const BlockSection* section = block.Find(role);
  if (section == nullptr) return std::optional<AdapterState>();
  std::vector<LinearSite> sites;
  sites.reserve(section->sites.size());
  for (const BlockSite& site : section->sites) sites.push_back(site.site);
  WEFT_TRY(CheckLayout(*section, section->spec, sites, codec.dtype())
               .Within(Str("[bundle] section ", role)));
  WEFT_TRY_ASSIGN(AdapterState state, DecodeAdapter(*section, codec, device));
  return std::optional<AdapterState>(std::move(state));
}

}  // namespace

Result<BlockSection> EncodeAdapter(const AdapterState& state, std::string_view role,
                                   const Codec& codec) {
  return Guarded("[codec]", [&]() -> Result<BlockSection> {
    BlockSection section{std::string(role), state.spec, {}, {}};
    section.sites.reserve(state.sites.size());
    for (const SiteState& site : state.sites) {
      Result<std::vector<BlockTensor>> tensors = EncodeTensors(site.tensors, codec);
      if (!tensors.ok()) return tensors.status().Within(Str("[codec] site ", site.site.path));
      section.sites.push_back({site.site, std::move(tensors).value()});
    }
    Result<std::vector<BlockTensor>> dense = EncodeTensors(state.dense, codec);
    if (!dense.ok()) return dense.status().Within("[codec] dense");
    section.dense = std::move(dense).value();
    return section;
  });
}

Result<AdapterState> DecodeAdapter(const BlockSection& section, const Codec& codec,
                                   at::Device device) {
  return DecodeSection(section, [&](const BlockTensor& tensor) -> Result<at::Tensor> {
    WEFT_TRY_ASSIGN(const at::Tensor value, codec.Decode(tensor));
    return value.to(device);
  });
}

Result<AdapterState> ViewAdapter(const BlockSection& section, const Codec& codec) {
  return DecodeSection(section, [&](const BlockTensor& tensor) { return codec.View(tensor); });
}

Result<Blob> EncodeBundle(const AdapterBundle& bundle, const Codec& codec) {
  TensorBlock block;
  block.codec = codec.name();
  if (bundle.adapter) {
    WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(*bundle.adapter, kAdapterRole, codec));
    block.sections.push_back(std::move(section));
  }
  if (bundle.frozen) {
    WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(*bundle.frozen, kFrozenRole, codec));
    block.sections.push_back(std::move(section));
  }
  return EncodeTensorBlock(block);
}

Result<AdapterBundle> DecodeBundle(const Blob& bytes, at::Device device) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bytes));
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  WEFT_TRY(CheckFinite(block));
  AdapterBundle bundle;
  WEFT_TRY_ASSIGN(bundle.adapter, DecodePart(block, kAdapterRole, *codec, device));
  WEFT_TRY_ASSIGN(bundle.frozen, DecodePart(block, kFrozenRole, *codec, device));
  return bundle;
}

Result<std::string> AdapterSha256(const AdapterState& state) {
  TensorBlock block;
  WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(state, kAdapterRole, Float32Codec()));
  block.sections.push_back(std::move(section));
  return TensorBlockSha256(block);
}

}  // namespace weft
