#pragma once
// ChunkPatience: when to ask again for chunks that do not come. On a slow link they are only late,
// and each asking puts them into its queue once more: so what a chunk takes is learnt, over all
// transfers with one peer, and asking in vain doubles the wait. No clock, no threads.

#include "common/runtime/clock.h"

namespace weft {

class ChunkPatience {
 public:
  /// A transfer begins, or the link is new.
  void Begin(Nanos now);
  /// A chunk has come that was waited for.
  void Came(Nanos now);
  /// One has come that is of no use: it and those behind it have to be asked for again.
  void Damaged(Nanos now);
  /// True when it is time to ask again, once: the next wait is twice as long.
  [[nodiscard]] bool Over(Nanos now);

 private:
  [[nodiscard]] Nanos Usual() const;

  Nanos chunk_{0};  // what one takes
  Nanos moved_{0};  // when the last one came
  Nanos asked_{0};  // when waiting began
  Nanos wait_{0};
};

}  // namespace weft
