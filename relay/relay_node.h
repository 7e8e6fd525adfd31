#pragma once
// RelayNode: an aggregator to its own members and one client to the aggregator above. It is the two
// nodes that these are, put together: what the client above is asked to train, the members train
// below. Neither of the two knows.
//
//   aggregator above ⇄ ClientNode → TrainJob → RelayCourse of an AggregatorNode ⇄ members
//
// Owned by whoever built the Envs; all calls come from their one loop.

#include <functional>
#include <memory>

#include "aggregator/options.h"
#include "client/options.h"
#include "common/runtime/env.h"

namespace weft {

struct RelayOptions {
  AggregatorOptions below;
  ClientOptions above;  // its offer is what the members offer, once they are here
};

class RelayNode {
 public:
  /// `link` gives the Env above, once there is something to offer; the two Envs share a clock.
  RelayNode(Env below, std::function<Result<Env>()> link, RelayOptions options);
  ~RelayNode();
  RelayNode(const RelayNode&) = delete;
  RelayNode& operator=(const RelayNode&) = delete;

  [[nodiscard]] Status Start();
  /// Asks both nodes for a clean end.
  void Stop(const Status& why);
  [[nodiscard]] bool Finished() const;
  /// Ok once the run above is completed; the failure of whichever node failed.
  [[nodiscard]] Status Outcome() const;
  /// The aggregator above does not want it: trying again as it is cannot help.
  [[nodiscard]] bool Refused() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
