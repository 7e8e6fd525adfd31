#pragma once
// Publisher: makes a new version durable in the order a crash forgives: state blob, exported
// folder, and only then the event that says that they exist. Owned by the AggregatorNode.

#include <functional>
#include <string>

#include "aggregator/office.h"
#include "common/base/bytes.h"
#include "common/plan/certificate.h"

namespace weft {

struct NewVersion {
  RoundId version;
  Blob state;
  std::string adapter_sha256;
  Certificate certificate = {};
  MergeKernels kernels = {};
  double merge_s = 0;
  bool updates_kept = false;  // what it was merged from stays
  bool adopted = false;       // from the aggregator above
};

class Publisher {
 public:
  explicit Publisher(Office& office) : office_(office) {}

  /// `before` precede the publication in the ledger, in the same transaction. `done` runs once it
  /// is durable; office.version and office.state_blob are then the new ones. Failures end the run.
  void Publish(NewVersion version, std::vector<RunEvent> before, std::function<void()> done);

 private:
  struct Work;
  void OnStored(const std::shared_ptr<Work>& work);
  void Export(const std::shared_ptr<Work>& work);
  void ExportLater(const std::shared_ptr<Work>& work, const Status& why);
  void ListExported(const std::shared_ptr<Work>& work);
  void Record(const std::shared_ptr<Work>& work);

  Office& office_;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace weft
