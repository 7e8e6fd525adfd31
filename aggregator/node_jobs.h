#pragma once
// The aggregator's own small jobs: what would hold up its loop and needs no tensor.

#include <string>
#include <vector>

#include "aggregator/jobs.h"
#include "common/base/bytes.h"
#include "common/runtime/executor.h"
#include "common/runtime/run_events.h"

namespace weft {

/// Names bytes by their digest.
struct DigestJob {
  using Output = std::string;  // SHA-256, hex
  Blob bytes;
};

/// Every file below root/folder, named relative to root, sorted by name.
struct ListFilesJob {
  using Output = std::vector<FileRef>;
  std::string root;
  std::string folder;
};

/// Updates whose bytes in the store are not those that were accepted, or are not there.
struct CheckSpoolJob {
  using Output = std::vector<ClientId>;  // whose they are
  std::vector<SpooledUpdate> updates;
  const BlobSource* store = nullptr;
};

void RegisterNodeJobs(WorkTable& table);

}  // namespace weft
