#pragma once
// XXH3 (64 bits, seed 0, by libxxhash): finds accidental damage in a chunk. Not a cryptographic
// digest: a peer can forge it, so whole payloads carry a SHA-256 as well.

#include <cstdint>

#include "common/base/bytes.h"

namespace weft {

/// The same number on every machine, whatever its byte order.
[[nodiscard]] uint64_t Xxh3(ByteSpan bytes);

}  // namespace weft
