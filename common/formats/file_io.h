#pragma once
// Whole files in and out: reading with a size limit, mapping without a copy, and replacing a file
// so that a crash leaves either the old or the new content. Stateless; any thread.

#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace weft {

/// A file mapped read-only for as long as somebody holds the pointer. Pages come from the disk when
/// touched; a file that another program shortens meanwhile ends the process by SIGBUS, so files in
/// use must be replaced, not overwritten (WriteFileAtomically does that).
class MappedFile {
 public:
  /// kNotFound, kPermissionDenied or kInvalidArgument (a folder, a pipe), each naming the file.
  [[nodiscard]] static Result<std::shared_ptr<const MappedFile>> Open(
      const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  [[nodiscard]] ByteSpan span() const { return bytes_; }
  /// The whole file as a Blob that keeps the mapping alive.
  [[nodiscard]] static Blob AsBlob(std::shared_ptr<const MappedFile> file);

 private:
  explicit MappedFile(ByteSpan bytes) : bytes_(bytes) {}

  ByteSpan bytes_;  // empty for an empty file, which has no mapping
};

/// A regular file's content. kResourceExhausted when it is larger than `bytes_max`, kNotFound when
/// it cannot be opened; each names the file.
[[nodiscard]] Result<std::string> ReadFile(const std::filesystem::path& path, size_t bytes_max);

/// Writes the parts one after another into a temporary file beside `path`, forces it to the disk
/// and renames it. On failure (disk full, no such folder) the old file stays and the status names
/// `path`.
[[nodiscard]] Status WriteFileAtomically(const std::filesystem::path& path,
                                         std::span<const ByteSpan> parts);
[[nodiscard]] Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text);

}  // namespace weft
