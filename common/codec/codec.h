#pragma once
// Codec: how an adapter's tensors become wire bytes. A new codec is one .cc file and one line in
// registry.cc. Stateless; safe to use from several threads.

#include <cstdint>
#include <limits>
#include <span>
#include <string_view>

#include "common/adapters/adapter_state.h"
#include "common/base/result.h"
#include "common/wire/tensor_block.h"

namespace weft {

/// How much an element may move: by at most `error` times the largest magnitude among the `block`
/// elements that share a scale with it: neighbours in row-major order, of a tensor packed as sparse
/// among its elements that are not zero. 1: its own magnitude.
struct Rounding {
  static constexpr int64_t kWholeTensor = std::numeric_limits<int64_t>::max();
  int64_t block = 1;
  double error = 0;
};

class Codec {
 public:
  virtual ~Codec() = default;

  /// The registry's name, as settings and plans say it ("float32").
  [[nodiscard]] virtual std::string_view name() const = 0;
  /// Element type of an encoded tensor: what CheckLayout wants of a peer.
  [[nodiscard]] virtual DType dtype() const = 0;

  [[nodiscard]] virtual Rounding rounding() const = 0;
  /// Is each element stored by itself, within its own relative precision?
  [[nodiscard]] bool elementwise() const { return rounding().block == 1; }

  /// Any floating tensor on any device. A zero comes back as a zero. kInvalidArgument if a value is
  /// not finite, or is not finite any more once it is stored.
  [[nodiscard]] virtual Result<BlockTensor> Encode(const NamedTensor& tensor) const = 0;
  /// Float32 on the CPU, for reading only: where float32 is what is stored, it looks at the stored
  /// bytes and keeps them alive. A packed tensor is unpacked. One of another element type, or of
  /// bytes that are not of its packing, is refused.
  [[nodiscard]] virtual Result<at::Tensor> View(const BlockTensor& tensor) const = 0;
  /// The same in memory of its own.
  [[nodiscard]] Result<at::Tensor> Decode(const BlockTensor& tensor) const;
};

/// Every codec there is, in a fixed order.
[[nodiscard]] std::span<const Codec* const> CodecRegistry();

/// The codec of that name, or kNotFound listing the known ones.
[[nodiscard]] Result<const Codec*> FindCodec(std::string_view name);

}  // namespace weft
