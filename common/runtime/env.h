#pragma once
// Env: all the world a node may touch. The node borrows; whoever builds the Env owns the parts and
// outlives the node.

#include "common/base/random.h"
#include "common/log/log.h"
#include "common/runtime/clock.h"
#include "common/runtime/executor.h"
#include "common/runtime/store.h"
#include "common/runtime/transport.h"

namespace weft {

struct Env {
  Clock& clock;
  Transport& transport;
  Executor& executor;
  Store& store;
  RandomStream& entropy;  // jitter and nonces only: nothing that decides a result
  log::Logger& log;
};

/// A single-threaded state machine that never blocks or sleeps. All calls come from one loop.
class Node : public Transport::Receiver {
 public:
  /// Reads its state back from the store and starts; called once, before any message.
  [[nodiscard]] virtual Status Start() = 0;
  /// Asks for a clean end (SIGTERM): finish what is being written, tell the peers, then Finished()
  /// is true.
  virtual void Stop(const Status& why) = 0;
  /// True once nothing is left to do; the loop then ends.
  [[nodiscard]] virtual bool Finished() const = 0;
  /// The node's outcome once Finished(): ok, or why it failed.
  [[nodiscard]] virtual Status Outcome() const = 0;
};

}  // namespace weft
