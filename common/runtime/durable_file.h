#pragma once
// Files that are whole or absent after a crash: temporary file, fsync, rename, fsync of the folder.
// POSIX calls with a Status for every failure. Thread-safe: no state.

#include <cstdint>
#include <filesystem>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace weft {

/// An open file descriptor, closed by its destructor.
class FileHandle {
 public:
  FileHandle() = default;
  explicit FileHandle(int fd) : fd_(fd) {}
  ~FileHandle();
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;

  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] bool open() const { return fd_ >= 0; }

 private:
  int fd_ = -1;
};

/// "[store] PATH: ACTION: strerror", coded: no space, quota or size limit → kResourceExhausted,
/// ENOENT and ENOTDIR → kNotFound, EACCES/EPERM/EROFS → kPermissionDenied, otherwise kInternal.
[[nodiscard]] Status ErrnoStatus(const std::filesystem::path& path, const std::string& action,
                                 int error);

/// Opens with O_CLOEXEC; `flags` as of open(2).
[[nodiscard]] Result<FileHandle> OpenFile(const std::filesystem::path& path, int flags);

/// Writes all of `bytes` at `offset`.
[[nodiscard]] Status WriteAt(const FileHandle& file, const std::filesystem::path& path,
                             uint64_t offset, ByteSpan bytes);

[[nodiscard]] Status SyncFile(const FileHandle& file, const std::filesystem::path& path);

/// Makes renames and new names in this folder durable.
[[nodiscard]] Status SyncFolder(const std::filesystem::path& folder);

/// Creates `folder` and what is missing above it, each made durable in its parent.
[[nodiscard]] Status MakeFolders(const std::filesystem::path& folder);

/// `from` takes the name `to` (replacing it), durably; both in one folder.
[[nodiscard]] Status RenameDurably(const std::filesystem::path& from,
                                   const std::filesystem::path& to);

/// `path` holds exactly `bytes`, durably, or what it held before. `temp` lies in the same folder.
[[nodiscard]] Status ReplaceFile(const std::filesystem::path& path,
                                 const std::filesystem::path& temp, ByteSpan bytes);

/// Removes a file; one that is absent is fine.
[[nodiscard]] Status RemoveFile(const std::filesystem::path& path);

/// The whole file, mapped read-only; the mapping lives as long as the blob. kNotFound if absent.
[[nodiscard]] Result<Blob> MapFile(const std::filesystem::path& path);

/// Bytes [offset, offset + length), in memory of their own; kDataLoss if the file ends before.
[[nodiscard]] Result<Blob> ReadFilePart(const std::filesystem::path& path, uint64_t offset,
                                        uint64_t length);

}  // namespace weft
