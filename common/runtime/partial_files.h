#pragma once
// PartialFiles: blobs that arrive in pieces, as `<name>.part` below the run folder, hashed while
// they are written. Owned and used by the store's writer thread.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/crypto/digest.h"

namespace weft {

class PartialFiles {
 public:
  explicit PartialFiles(std::filesystem::path folder) : folder_(std::move(folder)) {}

  /// Appends; `offset` must be the present size (kFailedPrecondition says it). A failed write
  /// leaves the size as it was.
  [[nodiscard]] Status Write(const std::string& name, uint64_t offset, ByteSpan bytes);

  /// Makes the partial file the blob `name` if size and digest are as said; else removes it and
  /// returns kDataLoss.
  [[nodiscard]] Status Seal(const std::string& name, uint64_t bytes, const std::string& sha256);

  /// Removes the partial file, if any.
  [[nodiscard]] Status Remove(const std::string& name);

  [[nodiscard]] std::filesystem::path PartPath(const std::string& name) const;

 private:
  struct Open {
    uint64_t bytes = 0;
    Sha256 hash;  // of those bytes
  };

  // The state of `name`; what an earlier process left is hashed again.
  [[nodiscard]] Result<Open*> Find(const std::string& name);

  std::filesystem::path folder_;
  std::map<std::string, Open> open_;
};

}  // namespace weft
