#include "aggregator/spooled_updates.h"

#include <algorithm>

#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/slots.h"
#include "aggregator/update_admission.h"
#include "common/base/str.h"
#include "common/codec/delta.h"

namespace weft {

Result<std::unique_ptr<SpooledUpdates>> SpooledUpdates::Open(std::vector<ReceivedUpdate> updates,
                                                             std::span<const LinearSite> sites,
                                                             const std::string& weighting,
                                                             uint64_t max_examples,
                                                             std::span<const TensorLayout> dense) {
  std::stable_sort(updates.begin(), updates.end(),
                   [](const ReceivedUpdate& a, const ReceivedUpdate& b) {
                     return a.client.client < b.client.client;
                   });
  auto source = std::make_unique<SpooledUpdates>();
  std::vector<UpdateHeader> headers;
  for (ReceivedUpdate& update : updates) {
    if (!headers.empty() && headers.back().client == update.header.client) {
      return AlreadyExists(Str("[merge] client ", update.header.client, " has two updates"));
    }
    WEFT_TRY_ASSIGN(TensorBlock block, ReadUpdate(update.client, update.header, sites,
                                                  update.payload, dense, update.sent != nullptr));
    source->offsets_.push_back(update.read ? LetGo(update.payload, block) : Offsets());
    update.payload = Blob();
    source->blocks_.push_back(std::move(block));
    headers.push_back(update.header);
  }
  WEFT_TRY_ASSIGN(source->weights_, ClientWeights(headers, weighting, max_examples));
  source->updates_ = std::move(updates);
  return source;
}

SpooledUpdates::Offsets SpooledUpdates::LetGo(const Blob& payload, TensorBlock& block) {
  Offsets offsets;
  const auto let_go = [&](std::vector<BlockTensor>& tensors) {
    std::vector<Place>& own = offsets.emplace_back();
    for (BlockTensor& tensor : tensors) {
      own.push_back(
          {static_cast<size_t>(tensor.bytes.data() - payload.data()), tensor.bytes.size()});
      tensor.bytes = Blob();
    }
  };
  for (BlockSite& site : block.sections[0].sites) let_go(site.tensors);
  let_go(block.sections[0].dense);
  return offsets;
}

Result<std::vector<Blob>> SpooledUpdates::ReadSite(size_t client, size_t site) const {
  std::vector<Blob> pieces;
  const std::vector<BlockTensor>& tensors = blocks_[client].sections[0].sites[site].tensors;
  if (!updates_[client].read) {
    for (const BlockTensor& tensor : tensors) pieces.push_back(tensor.bytes);
    return pieces;
  }
  // A site's own tensors lie side by side; those that it shares with an earlier one lie there.
  const std::vector<Place>& places = offsets_[client][site];
  for (size_t first = 0; first < places.size();) {
    size_t last = first;
    while (last + 1 < places.size() && !tensors[first].shared_with &&
           !tensors[last + 1].shared_with) {
      ++last;
    }
    const size_t begin = places[first].offset;
    const size_t end = places[last].offset + places[last].size;
    WEFT_TRY_ASSIGN(const Blob bytes, updates_[client].read(begin, end - begin));
    for (; first <= last; ++first) {
      pieces.push_back(bytes.Slice(places[first].offset - begin, places[first].size));
    }
  }
  return pieces;
}

Result<SiteState> SpooledUpdates::Site(size_t client, size_t site) const {
  const TensorBlock& block = blocks_[client];
  const BlockSection& section = block.sections[0];
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  WEFT_TRY_ASSIGN(std::vector<Blob> pieces, ReadSite(client, site));
  SiteState state{section.sites[site].site, {}};
  for (size_t i = 0; i < pieces.size(); ++i) {
    BlockTensor tensor = section.sites[site].tensors[i];
    tensor.bytes = std::move(pieces[i]);
    WEFT_TRY_ASSIGN(at::Tensor value, codec->View(tensor));
    if (const AdapterState* sent = updates_[client].sent.get(); sent != nullptr) {
      value = WithChange(sent->sites[site].tensors[i].value, value);
    }
    state.tensors.push_back({tensor.name, std::move(value)});
  }
  return state;
}

Result<LowRank> SpooledUpdates::Factors(size_t client, size_t site) const {
  WEFT_TRY_ASSIGN(const SiteState state, Site(client, site));
  return LowerSite(blocks_[client].sections[0].spec, state);
}

Result<PlainFactors> SpooledUpdates::Plain(size_t client, size_t site) const {
  const AdapterSpec& spec = blocks_[client].sections[0].spec;
  if (spec.method != "lora") return UpdateSource::Plain(client, site);
  WEFT_TRY_ASSIGN(const SiteState state, Site(client, site));
  return PlainFactors{{state.Get("A"), state.Get("B")}, ScalingFor(spec, state.site.path)};
}

Result<AdapterState> SpooledUpdates::Stored(size_t client) const {
  const ReceivedUpdate& update = updates_[client];
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(blocks_[client].codec));
  if (!update.read) return ViewAdapter(blocks_[client].sections[0], *codec);
  WEFT_TRY_ASSIGN(const Blob payload, update.read(0, update.header.payload_bytes));
  WEFT_TRY_ASSIGN(const TensorBlock block, DecodeTensorBlock(payload));
  return ViewAdapter(block.sections[0], *codec);
}

Result<AdapterState> SpooledUpdates::State(size_t client) const {
  WEFT_TRY_ASSIGN(AdapterState stored, Stored(client));
  if (updates_[client].sent == nullptr) return stored;
  return WithChange(*updates_[client].sent, stored);
}

Result<std::vector<NamedTensor>> SpooledUpdates::Dense(size_t client) const {
  const TensorBlock& block = blocks_[client];
  const ReceivedUpdate& update = updates_[client];
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  std::vector<NamedTensor> dense;
  for (BlockTensor tensor : block.sections[0].dense) {
    if (update.read) {
      const Place place = offsets_[client].back()[dense.size()];
      WEFT_TRY_ASSIGN(tensor.bytes, update.read(place.offset, place.size));
    }
    WEFT_TRY_ASSIGN(at::Tensor value, codec->Decode(tensor));
    if (update.sent) value = WithChange(update.sent->dense[dense.size()].value, value);
    dense.push_back({tensor.name, std::move(value)});
  }
  return dense;
}

}  // namespace weft
