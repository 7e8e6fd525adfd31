#include "aggregator/spooled_updates.h"

#include <algorithm>

#include "aggregator/strategies/round_merge.h"
#include "aggregator/strategies/slots.h"
#include "aggregator/update_admission.h"
#include "common/base/str.h"

namespace weft {

Result<std::unique_ptr<SpooledUpdates>> SpooledUpdates::Open(std::vector<ReceivedUpdate> updates,
                                                             std::span<const LinearSite> sites,
                                                             const std::string& weighting,
                                                             uint64_t max_examples) {
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
    WEFT_TRY_ASSIGN(TensorBlock block,
                    ReadUpdate(update.client, update.header, sites, update.payload));
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
  for (BlockSite& site : block.sections[0].sites) {
    std::vector<size_t>& own = offsets.emplace_back();
    for (BlockTensor& tensor : site.tensors) {
      own.push_back(static_cast<size_t>(tensor.bytes.data() - payload.data()));
      own.push_back(tensor.bytes.size());
      tensor.bytes = Blob();
    }
  }
  for (BlockTensor& tensor : block.sections[0].dense) tensor.bytes = Blob();
  return offsets;
}

Result<LowRank> SpooledUpdates::Factors(size_t client, size_t site) const {
  const TensorBlock& block = blocks_[client];
  const BlockSection& section = block.sections[0];
  WEFT_TRY_ASSIGN(const Codec* codec, FindCodec(block.codec));
  Blob own;
  size_t begin = 0;
  if (updates_[client].read) {
    const std::vector<size_t>& places = offsets_[client][site];
    begin = places[0];
    const size_t end = places[places.size() - 2] + places.back();
    WEFT_TRY_ASSIGN(own, updates_[client].read(begin, end - begin));
  }
  SiteState state{section.sites[site].site, {}};
  for (size_t i = 0; i < section.sites[site].tensors.size(); ++i) {
    BlockTensor tensor = section.sites[site].tensors[i];
    if (updates_[client].read) {
      const size_t* const place = offsets_[client][site].data() + 2 * i;
      tensor.bytes = own.Slice(place[0] - begin, place[1]);
    }
    WEFT_TRY_ASSIGN(at::Tensor value, codec->View(tensor));
    state.tensors.push_back({tensor.name, std::move(value)});
  }
  return LowerSite(section.spec, state);
}

}  // namespace weft
