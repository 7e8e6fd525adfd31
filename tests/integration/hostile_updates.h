#pragma once
// Updates as a hostile client would make them: a good one, spoilt in one place. What the block's
// own encoder would not write is written here, byte by byte or through Cap'n Proto.

#include <functional>
#include <string>
#include <vector>

#include <protocols/tensors.capnp.h>

#include "common/adapters/adapter_state.h"
#include "common/wire/messages.h"
#include "common/wire/tensor_block.h"
#include "tests/integration/hostile_member.h"

namespace weft::testing {

/// What an honest member makes of its bundle: small numbers, drawn by its name and the round, added
/// to every B.
class GoodUpdate {
 public:
  GoodUpdate(const RoundPlan& plan, const Blob& bundle);

  [[nodiscard]] Delivery Whole() const;
  /// That payload, with an offer that fits it.
  [[nodiscard]] Delivery Of(const Blob& payload) const;

  // Each with one thing changed; the offer fits what is served unless it is the thing.
  [[nodiscard]] Delivery WithState(const std::function<void(AdapterState&)>& spoil) const;
  [[nodiscard]] Delivery WithBlock(const std::function<void(TensorBlock&)>& spoil,
                                   BlockForm form = BlockForm::kCanonical) const;
  [[nodiscard]] Delivery WithManifest(
      const std::function<void(proto::TensorManifest::Builder)>& spoil) const;
  [[nodiscard]] Delivery WithBytes(const std::function<void(std::vector<std::byte>&)>& spoil) const;
  [[nodiscard]] Delivery WithOffer(const std::function<void(UpdateOffer&)>& spoil) const;
  /// Another payload served than the one offered.
  [[nodiscard]] Delivery Serving(const std::function<void(std::vector<std::byte>&)>& spoil) const;

 private:
  [[nodiscard]] TensorBlock Block(const AdapterState& state) const;
  [[nodiscard]] UpdateOffer OfferFor(const Blob& payload) const;

  UpdateHeader header_;
  AdapterState state_;
};

/// The tensor's float32 elements [from, from + count) set to a number; the rest stay.
void SetFloats(BlockTensor& tensor, float value, size_t from, size_t count);
void SetAllFloats(TensorBlock& block, float value);
void PutLittleEndian(std::vector<std::byte>& bytes, size_t at, uint64_t value);

}  // namespace weft::testing
