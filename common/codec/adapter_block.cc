#include "common/codec/adapter_block.h"

#include <unordered_map>

#include "common/base/str.h"
#include "common/codec/layout.h"
#include "common/codec/packing.h"
#include "common/codec/precision.h"
#include "common/tensor/guard.h"

namespace weft {
namespace {

// Encodes tensors, each once: a site that shares one with an earlier site says so.
class Encoder {
 public:
  Encoder(const Codec& codec, TensorForm form) : codec_(codec), form_(form) {}

  Result<std::vector<BlockTensor>> Encode(const std::vector<NamedTensor>& tensors,
                                          std::optional<size_t> site) {
    std::vector<BlockTensor> encoded;
    encoded.reserve(tensors.size());
    for (const NamedTensor& tensor : tensors) {
      if (site) {
        const Place here{*site, encoded.size()};
        const auto [met, is_new] = met_.try_emplace(tensor.value.unsafeGetTensorImpl(), here);
        if (!is_new) {
          BlockTensor shared = (*sites_)[met->second.site].tensors[met->second.tensor];
          WEFT_CHECK(shared.name == tensor.name, shared.name, " is shared as ", tensor.name);
          shared.shared_with = met->second.site;
          encoded.push_back(std::move(shared));
          continue;
        }
      }
      WEFT_TRY_ASSIGN(BlockTensor block, codec_.Encode(tensor));
      encoded.push_back(form_ == TensorForm::kPlain
                            ? std::move(block)
                            : Packed(std::move(block), form_ == TensorForm::kCompressed));
    }
    return encoded;
  }

  Result<std::vector<BlockSite>> EncodeSites(const std::vector<SiteState>& sites) {
    std::vector<BlockSite> encoded;
    encoded.reserve(sites.size());
    sites_ = &encoded;
    for (const SiteState& site : sites) {
      Result<std::vector<BlockTensor>> tensors = Encode(site.tensors, encoded.size());
      if (!tensors.ok()) return tensors.status().Within(Str("[codec] site ", site.site.path));
      encoded.push_back({site.site, std::move(tensors).value()});
    }
    return encoded;
  }

 private:
  struct Place {
    size_t site;
    size_t tensor;
  };
  const Codec& codec_;
  TensorForm form_;
  const std::vector<BlockSite>* sites_ = nullptr;
  std::unordered_map<const c10::TensorImpl*, Place> met_;  // looked up only
};

template <typename DecodeOne>
Result<std::vector<NamedTensor>> DecodeTensors(const std::vector<BlockTensor>& tensors,
                                               const std::vector<SiteState>& earlier,
                                               const DecodeOne& decode) {
  std::vector<NamedTensor> decoded;
  decoded.reserve(tensors.size());
  for (const BlockTensor& tensor : tensors) {
    if (tensor.shared_with) {
      decoded.push_back({tensor.name, earlier[*tensor.shared_with].Get(tensor.name)});
      continue;
    }
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
      Result<std::vector<NamedTensor>> tensors = DecodeTensors(site.tensors, state.sites, decode);
      if (!tensors.ok()) return tensors.status().Within(Str("[codec] site ", site.site.path));
      state.sites.push_back({site.site, std::move(tensors).value()});
    }
    Result<std::vector<NamedTensor>> dense = DecodeTensors(section.dense, state.sites, decode);
    if (!dense.ok()) return dense.status().Within("[codec] dense");
    state.dense = std::move(dense).value();
    return state;
  });
}

Result<std::optional<AdapterState>> DecodePart(const TensorBlock& block, const char* role,
                                               at::Device device) {
  const BlockSection* section = block.Find(role);
  if (section == nullptr) return std::optional<AdapterState>();
  WEFT_TRY_ASSIGN(const Codec* codec,
                  FindCodec(section->codec.empty() ? block.codec : section->codec));
  if (section->delta) {
    return InvalidArgument(Str("[bundle] section ", role, " is a delta, wanted a whole adapter"));
  }
  std::vector<LinearSite> sites;
  sites.reserve(section->sites.size());
  for (const BlockSite& site : section->sites) sites.push_back(site.site);
  WEFT_TRY(CheckLayout(*section, section->spec, sites, codec->dtype(), DenseOf(*section))
               .Within(Str("[bundle] section ", role)));
  WEFT_TRY_ASSIGN(AdapterState state, DecodeAdapter(*section, *codec, device));
  return std::optional<AdapterState>(std::move(state));
}

}  // namespace

Result<BlockSection> EncodeAdapter(const AdapterState& state, std::string_view role,
                                   const Codec& codec, TensorForm form) {
  return Guarded("[codec]", [&]() -> Result<BlockSection> {
    BlockSection section{std::string(role), state.spec, {}, {}};
    Encoder encoder(codec, form);
    WEFT_TRY_ASSIGN(section.sites, encoder.EncodeSites(state.sites));
    Result<std::vector<BlockTensor>> dense = encoder.Encode(state.dense, std::nullopt);
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

Result<Blob> EncodeBundle(const AdapterBundle& bundle, const Codec& codec, TensorForm form) {
  TensorBlock block;
  block.codec = codec.name();
  const auto add = [&](const std::optional<AdapterState>& part, const char* role,
                       const Codec& own) -> Status {
    if (!part) return OkStatus();
    WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(*part, role, own, form));
    if (&own != &codec) section.codec = own.name();
    block.sections.push_back(std::move(section));
    return OkStatus();
  };
  WEFT_TRY(add(bundle.adapter, kAdapterRole, codec));
  WEFT_TRY(add(bundle.frozen, kFrozenRole, codec));
  // Known by its hash, the same for every site and every round.
  WEFT_TRY(add(bundle.base_change, kBaseRole, Float32Codec()));
  return EncodeTensorBlock(block, BlockForm::kCompact);
}

Result<Blob> EncodeUpdate(const AdapterState& update, bool delta, const Codec& codec,
                          TensorForm form) {
  TensorBlock block;
  block.codec = codec.name();
  WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(update, kAdapterRole, codec, form));
  section.delta = delta;
  block.sections.push_back(std::move(section));
  return EncodeTensorBlock(block, BlockForm::kCompact);
}

Result<AdapterBundle> DecodeBundle(const Blob& bytes, at::Device device) {
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(bytes));
  WEFT_TRY(FindCodec(block.codec).status());
  WEFT_TRY(CheckFinite(block));
  AdapterBundle bundle;
  WEFT_TRY_ASSIGN(bundle.adapter, DecodePart(block, kAdapterRole, device));
  WEFT_TRY_ASSIGN(bundle.frozen, DecodePart(block, kFrozenRole, device));
  WEFT_TRY_ASSIGN(bundle.base_change, DecodePart(block, kBaseRole, device));
  return bundle;
}

Result<std::string> AdapterSha256(const AdapterState& state) {
  TensorBlock block;
  WEFT_TRY_ASSIGN(BlockSection section, EncodeAdapter(state, kAdapterRole, Float32Codec()));
  block.sections.push_back(std::move(section));
  return TensorBlockSha256(block);
}

}  // namespace weft
