#include "aggregator/update_admission.h"

#include <cmath>

#include "common/base/limits.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/layout.h"
#include "common/codec/packing.h"

namespace weft {
namespace {

std::string Whose(const ClientPlan& client, const UpdateHeader& header) {
  return Str("[admission] client ", client.client, " round ", header.round);
}

Status CheckCount(std::string_view what, uint64_t count) {
  if (count >= 1 && count <= limits::kExamplesMax) return OkStatus();
  return InvalidArgument(Str(what, " is ", count, ", wanted 1 to ", limits::kExamplesMax));
}

bool AllZero(const BlockSection& section) {
  for (const BlockSite& site : section.sites) {
    for (const BlockTensor& tensor : site.tensors) {
      if (!IsZero(tensor)) return false;
    }
  }
  return true;
}

}  // namespace

Status CheckUpdateHeader(const ClientPlan& client, const UpdateHeader& header) {
  const auto check = [&]() -> Status {
    if (header.client != client.client) {
      return InvalidArgument(Str("the update says it is from client ", header.client));
    }
    WEFT_TRY(CheckSameSpec(header.spec, client.adapter));
    WEFT_TRY(CheckCount("num_examples", header.num_examples));
    WEFT_TRY(CheckCount("label_tokens", header.label_tokens));
    if (!std::isfinite(header.train_loss)) {
      return InvalidArgument(Str("train_loss is ", header.train_loss,
                                 ": the local training diverged; lower its learning rate"));
    }
    return OkStatus();
  };
  return check().Within(Whose(client, header));
}

Result<TensorBlock> ReadUpdate(const ClientPlan& client, const UpdateHeader& header,
                               std::span<const LinearSite> sites, const Blob& payload,
                               std::span<const TensorLayout> dense, bool delta) {
  WEFT_TRY(CheckUpdateHeader(client, header));
  const auto check = [&]() -> Result<TensorBlock> {
    if (payload.size() != header.payload_bytes) {
      return InvalidArgument(
          Str("got ", payload.size(), " bytes, the offer said ", header.payload_bytes));
    }
    WEFT_TRY_ASSIGN(const uint64_t manifest_bytes_max,
                    ManifestBytesMax(client.adapter, sites, dense));
    WEFT_TRY_ASSIGN(TensorBlock block, DecodeTensorBlock(payload, manifest_bytes_max));
    if (block.codec != header.codec) {
      return InvalidArgument(
          Str("the payload is of codec ", block.codec, ", the offer said ", header.codec));
    }
    WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
    if (block.sections.size() != 1 || block.sections[0].role != kAdapterRole) {
      return InvalidArgument(Str("got ", block.sections.size(), " sections",
                                 block.sections.empty() ? "" : ", the first ",
                                 block.sections.empty() ? "" : block.sections[0].role,
                                 "; wanted one, \"", kAdapterRole, "\""));
    }
    const BlockSection& section = block.sections[0];
    if (!section.codec.empty()) {
      return InvalidArgument(
          Str("its section is of codec ", section.codec, ", the offer said ", header.codec));
    }
    WEFT_TRY(CheckSameSpec(section.spec, client.adapter));
    if (section.delta != delta) {
      const auto what = [](bool d) { return d ? "a delta" : "a whole adapter"; };
      return InvalidArgument(Str("the update is ", what(section.delta), ", the plan wants ",
                                 what(delta), " (wire.delta)"));
    }
    WEFT_TRY(CheckLayout(section, client.adapter, sites, codec->dtype(), dense));
    return block;
  };
  Result<TensorBlock> block = check();
  if (!block.ok()) return block.status().Within(Whose(client, header));
  return block;
}

Result<TensorBlock> CheckUpdate(const ClientPlan& client, const UpdateHeader& header,
                                std::span<const LinearSite> sites, const Blob& payload,
                                std::span<const TensorLayout> dense, bool delta) {
  WEFT_TRY_ASSIGN(TensorBlock block, ReadUpdate(client, header, sites, payload, dense, delta));
  WEFT_TRY(CheckFinite(block).Within(Whose(client, header)));
  WEFT_TRY(CheckPacked(block).Within(Whose(client, header)));
  if (!delta && AllZero(block.sections[0])) {
    return InvalidArgument("every value of every tensor is zero: this adapter was never trained")
        .Within(Whose(client, header));
  }
  return block;
}

Result<AdapterState> ViewUpdate(const TensorBlock& block) {
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  WEFT_CHECK(block.sections.size() == 1, block.sections.size(), " sections");
  return ViewAdapter(block.sections[0], *codec);
}

}  // namespace weft
