#pragma once
// AdapterState ⇄ TensorBlock: what travels between aggregator and client, lies in the spool and is
// hashed. Bytes that a peer sent go through DecodeTensorBlock, CheckLayout and CheckFinite first.

#include <optional>
#include <string>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/codec/codec.h"
#include "common/wire/tensor_block.h"

namespace weft {

inline constexpr char kAdapterRole[] = "adapter";  // what is trained
inline constexpr char kFrozenRole[] = "frozen";    // what is applied beside it, unchanged
inline constexpr char kBaseRole[] = "base";        // what changes the base model itself

/// Plain tensors give canonical bytes, the same for the same values; on the wire each goes in the
/// shortest packing (packing.h), compressed ones among them if asked for.
enum class TensorForm { kPlain, kShortest, kCompressed };

/// The adapter as one section of a block. kInvalidArgument naming site and tensor if a value does
/// not fit the codec.
[[nodiscard]] Result<BlockSection> EncodeAdapter(const AdapterState& state, std::string_view role,
                                                 const Codec& codec,
                                                 TensorForm form = TensorForm::kPlain);

/// Float32 tensors on `device`, in memory of their own.
[[nodiscard]] Result<AdapterState> DecodeAdapter(const BlockSection& section, const Codec& codec,
                                                 at::Device device);

/// Float32 tensors on the CPU, for reading only: they may look at the section's bytes.
[[nodiscard]] Result<AdapterState> ViewAdapter(const BlockSection& section, const Codec& codec);

/// What a client is sent for a round: any part may be absent (then the client starts from a fresh
/// adapter of the plan's spec and seed, has nothing frozen, or the base as it is).
struct AdapterBundle {
  std::optional<AdapterState> adapter;
  std::optional<AdapterState> frozen = std::nullopt;
  std::optional<AdapterState> base_change =
      std::nullopt;  // what the run's method took out of the base model
};

/// In the compact form, tensors packed where that is shorter; the base change always float32.
[[nodiscard]] Result<Blob> EncodeBundle(const AdapterBundle& bundle, const Codec& codec,
                                        TensorForm form = TensorForm::kShortest);

/// A client's update: the bundle of that adapter alone, or (`delta`) of its change in what was
/// sent.
[[nodiscard]] Result<Blob> EncodeUpdate(const AdapterState& update, bool delta, const Codec& codec,
                                        TensorForm form = TensorForm::kShortest);

/// Checks structure and finiteness, then each section against its own spec (tensor names, shapes,
/// element types); whether the specs are those of the plan is the caller's to check. A delta is
/// none.
[[nodiscard]] Result<AdapterBundle> DecodeBundle(const Blob& bytes, at::Device device);

/// The adapter's name: SHA-256 (hex) of the canonical float32 block that holds it alone.
[[nodiscard]] Result<std::string> AdapterSha256(const AdapterState& state);

}  // namespace weft
