#pragma once
// BlobFolder: the blobs below a run folder, for reading alone: no lock, no thread, no ledger. Any
// thread may read, also while an aggregator works on the folder.

#include <filesystem>
#include <string>

#include "common/runtime/store.h"

namespace weft {

class BlobFolder : public BlobSource {
 public:
  explicit BlobFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Mapped. kInvalidArgument for what is no blob's name.
  [[nodiscard]] Result<Blob> ReadBlob(const std::string& name) const override;
  [[nodiscard]] Result<Blob> ReadPart(const std::string& name, uint64_t offset,
                                      uint64_t length) const override;

 private:
  std::filesystem::path folder_;
};

}  // namespace weft
