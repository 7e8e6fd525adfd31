#include "common/wire/chunk_patience.h"

#include <algorithm>

namespace weft {
namespace {

// A link that breaks is asked over at once when it is back, so nothing is lost by waiting long for
// the first chunk of one that is only slow.
constexpr Nanos kWaitMin = std::chrono::seconds(10);
constexpr Nanos kWaitMax = std::chrono::seconds(30);
// Soon, yet a peer whose every chunk is damaged does not keep the link busy.
constexpr Nanos kWaitDamaged = std::chrono::seconds(3);

}  // namespace

Nanos ChunkPatience::Usual() const { return std::clamp(2 * chunk_, kWaitMin, kWaitMax); }

void ChunkPatience::Begin(Nanos now) {
  moved_ = asked_ = now;
  wait_ = Usual();
}

void ChunkPatience::Came(Nanos now) {
  // Forgotten slowly: the last chunk of a payload is a small one and says little.
  chunk_ = std::max(now - moved_, chunk_ * 3 / 4);
  moved_ = asked_ = now;
  wait_ = Usual();
}

void ChunkPatience::Damaged(Nanos now) {
  asked_ = now;
  wait_ = kWaitDamaged;
}

bool ChunkPatience::Over(Nanos now) {
  if (now - asked_ <= wait_) return false;
  asked_ = now;
  wait_ = std::min(2 * wait_, kWaitMax);
  return true;
}

}  // namespace weft
