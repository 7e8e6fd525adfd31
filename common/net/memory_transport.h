#pragma once
// MemoryHub: aggregator and clients in one process, joined by queues instead of sockets; the same
// limits are checked. Each end may live on a loop (thread) of its own. Frames cross by reference,
// in order.

#include <map>
#include <memory>
#include <mutex>

#include "common/net/event_loop.h"
#include "common/runtime/transport.h"

namespace weft {

class MemoryHub {
 public:
  MemoryHub();
  ~MemoryHub();
  MemoryHub(const MemoryHub&) = delete;
  MemoryHub& operator=(const MemoryHub&) = delete;

  /// The aggregator's end; once. The end must be destroyed in its loop's thread, or after that loop
  /// has stopped.
  [[nodiscard]] std::unique_ptr<Transport> MakeAggregator(EventLoop& loop);
  /// The end of the client of that name. A second end of one name takes the place of the first
  /// (newest wins).
  [[nodiscard]] std::unique_ptr<Transport> MakeClient(EventLoop& loop, const ClientId& name);

 private:
  class End;
  struct Switch;
  std::shared_ptr<Switch> switch_;
};

}  // namespace weft
