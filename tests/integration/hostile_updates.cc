#include "tests/integration/hostile_updates.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include <capnp/message.h>
#include <capnp/serialize.h>

#include "common/base/check.h"
#include "common/base/random.h"
#include "common/base/str.h"
#include "common/codec/adapter_block.h"
#include "common/codec/precision.h"
#include "common/wire/message_codec.h"

namespace weft::testing {
namespace {

constexpr size_t kHeadBytes = 16;  // the mark and the manifest's length
constexpr size_t kAlignment = 64;

std::vector<std::byte> Bytes(const Blob& blob) { return {blob.span().begin(), blob.span().end()}; }

uint64_t LittleEndian(const std::vector<std::byte>& bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= std::to_integer<uint64_t>(bytes[at + i]) << (8 * i);
  return value;
}

}  // namespace

void PutLittleEndian(std::vector<std::byte>& bytes, size_t at, uint64_t value) {
  for (size_t i = 0; i < 8; ++i) bytes[at + i] = static_cast<std::byte>(value >> (8 * i));
}

void SetFloats(BlockTensor& tensor, float value, size_t from, size_t count) {
  std::vector<std::byte> bytes = Bytes(tensor.bytes);
  for (size_t i = from; i < from + count; ++i) {
    std::memcpy(bytes.data() + i * sizeof(value), &value, sizeof(value));
  }
  tensor.bytes = Blob::Adopt(std::move(bytes));
}

void SetAllFloats(TensorBlock& block, float value) {
  for (BlockSite& site : block.sections[0].sites) {
    for (BlockTensor& tensor : site.tensors) {
      SetFloats(tensor, value, 0, tensor.bytes.size() / sizeof(value));
    }
  }
}

GoodUpdate::GoodUpdate(const RoundPlan& plan, const Blob& bundle)
    : state_(*DecodeBundle(bundle, at::kCPU).value().adapter) {
  const ClientPlan& own = plan.cohort.front();
  header_.run = plan.run;
  header_.round = plan.round;
  header_.client = own.client;
  header_.version = plan.version;
  header_.base_hash = plan.base_hash;
  header_.spec = state_.spec = own.adapter;
  header_.codec = plan.codec;
  header_.num_examples = 8;
  header_.label_tokens = 80;
  header_.steps = 2;
  header_.train_loss = 2;
  RandomStream random =
      RandomStream::Derive(1, {"good update", own.client.name, Str(plan.round.number)});
  for (SiteState& site : state_.sites) {
    at::Tensor& B = site.Get("B");
    B = B.clone();
    float* const values = B.data_ptr<float>();
    for (int64_t i = 0; i < B.numel(); ++i) {
      values[i] += static_cast<float>(0.02 * (random.Uniform() - 0.5));
    }
  }
}

TensorBlock GoodUpdate::Block(const AdapterState& state) const {
  TensorBlock block;
  block.sections = {EncodeAdapter(state, kAdapterRole, Float32Codec()).value()};
  return block;
}

UpdateOffer GoodUpdate::OfferFor(const Blob& payload) const {
  UpdateOffer offer{.header = header_, .payload = OfferOf(payload)};
  offer.header.payload_sha256 = offer.payload.sha256;
  offer.header.payload_bytes = offer.payload.bytes;
  return offer;
}

Delivery GoodUpdate::Of(const Blob& payload) const {
  return {EncodeMessage(OfferFor(payload)), payload};
}

Delivery GoodUpdate::Whole() const { return Of(EncodeTensorBlock(Block(state_))); }

Delivery GoodUpdate::WithState(const std::function<void(AdapterState&)>& spoil) const {
  AdapterState state = CloneTo(state_, at::kCPU, at::kFloat);
  spoil(state);
  return Of(EncodeTensorBlock(Block(state)));
}

Delivery GoodUpdate::WithBlock(const std::function<void(TensorBlock&)>& spoil,
                               BlockForm form) const {
  TensorBlock block = Block(state_);
  spoil(block);
  return Of(EncodeTensorBlock(block, form));
}

Delivery GoodUpdate::WithManifest(
    const std::function<void(proto::TensorManifest::Builder)>& spoil) const {
  const std::vector<std::byte> good = Bytes(Whole().payload);
  const size_t manifest_bytes = LittleEndian(good, 8);
  const auto words =
      kj::heapArray<capnp::word>(reinterpret_cast<const capnp::word*>(good.data() + kHeadBytes),
                                 manifest_bytes / sizeof(capnp::word));
  capnp::FlatArrayMessageReader reader(words);
  capnp::MallocMessageBuilder builder;
  builder.setRoot(reader.getRoot<proto::TensorManifest>());
  spoil(builder.getRoot<proto::TensorManifest>());
  const kj::Array<capnp::word> spoilt = capnp::messageToFlatArray(builder);
  const auto up = [](size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; };
  std::vector<std::byte> payload(good.begin(), good.begin() + kHeadBytes);
  PutLittleEndian(payload, 8, spoilt.asBytes().size());
  const auto manifest = std::as_bytes(std::span(spoilt.begin(), spoilt.size()));
  payload.insert(payload.end(), manifest.begin(), manifest.end());
  payload.resize(up(payload.size()));
  payload.insert(payload.end(),
                 good.begin() + static_cast<std::ptrdiff_t>(up(kHeadBytes + manifest_bytes)),
                 good.end());
  return Of(Blob::Adopt(std::move(payload)));
}

Delivery GoodUpdate::WithBytes(const std::function<void(std::vector<std::byte>&)>& spoil) const {
  std::vector<std::byte> bytes = Bytes(Whole().payload);
  spoil(bytes);
  return Of(Blob::Adopt(std::move(bytes)));
}

Delivery GoodUpdate::WithOffer(const std::function<void(UpdateOffer&)>& spoil) const {
  const Blob payload = Whole().payload;
  UpdateOffer offer = OfferFor(payload);
  spoil(offer);
  return {EncodeMessage(offer), payload};
}

Delivery GoodUpdate::Serving(const std::function<void(std::vector<std::byte>&)>& spoil) const {
  Delivery delivery = Whole();
  std::vector<std::byte> bytes = Bytes(delivery.payload);
  spoil(bytes);
  delivery.payload = Blob::Adopt(std::move(bytes));
  return delivery;
}

}  // namespace weft::testing
