#include "common/crypto/checksum.h"

#include <xxhash.h>

namespace weft {

uint64_t Xxh3(ByteSpan bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace weft
