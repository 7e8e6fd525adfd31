#pragma once
// StateRepair: what a start does about a newest version whose state is not, on disk, what the
// ledger says: the state is made again, bit for bit, from what it was merged from. Owned by the
// AggregatorNode.

#include <functional>

#include "aggregator/office.h"
#include "aggregator/recovery.h"

namespace weft {

class StateRepair {
 public:
  explicit StateRepair(Office& office) : office_(office) {}

  /// Whether the newest version's state is there and whole. The log names what is not.
  [[nodiscard]] bool Whole(const RunPosition& position) const;
  /// Makes it again; `done` runs once it is on disk. Gives the run up where that cannot be done:
  /// nothing else holds what it held.
  void Run(const RunPosition& position, std::function<void()> done);

 private:
  void OnMade(const FileRef& wanted, Result<Blob> made, std::function<void()> done);

  Office& office_;
};

}  // namespace weft
