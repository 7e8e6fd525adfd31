#include "common/runtime/durable_file.h"

#include <cerrno>
#include <memory>
#include <system_error>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/failpoint.h"
#include "common/base/str.h"

namespace weft {
namespace {

// Retries a system call that a signal interrupted.
template <typename Call>
auto Uninterrupted(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

// Readable by whom the process's umask lets read.
constexpr mode_t kFileMode = 0666;

}  // namespace

FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}
FileHandle::FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

Status ErrnoStatus(const std::filesystem::path& path, const std::string& action, int error) {
  const std::string message =
      Str("[store] ", path.string(), ": ", action, ": ", std::generic_category().message(error));
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return ResourceExhausted(message + "; free space in the run folder");
    case EMFILE:
    case ENFILE:
    case ENOMEM:
      return ResourceExhausted(message);
    case ENOENT:
    case ENOTDIR:
      return NotFound(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return PermissionDenied(message);
    default:
      return Internal(message);
  }
}

Result<FileHandle> OpenFile(const std::filesystem::path& path, int flags) {
  const int fd = Uninterrupted([&] { return ::open(path.c_str(), flags | O_CLOEXEC, kFileMode); });
  if (fd < 0) return ErrnoStatus(path, "open", errno);
  return FileHandle(fd);
}

Status WriteAt(const FileHandle& file, const std::filesystem::path& path, uint64_t offset,
               ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t written = Uninterrupted([&] {
      return ::pwrite(file.fd(), bytes.data(), bytes.size(), static_cast<off_t>(offset));
    });
    if (written < 0) return ErrnoStatus(path, "write", errno);
    if (written == 0) return ErrnoStatus(path, "write", ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(written));
    offset += static_cast<uint64_t>(written);
  }
  return OkStatus();
}

Status SyncFile(const FileHandle& file, const std::filesystem::path& path) {
  // Not repeated on EINTR alone: a failed fsync may have dropped the dirty pages.
  if (::fsync(file.fd()) != 0) return ErrnoStatus(path, "fsync", errno);
  return OkStatus();
}

Status SyncFolder(const std::filesystem::path& folder) {
  WEFT_TRY_ASSIGN(const FileHandle handle, OpenFile(folder, O_RDONLY | O_DIRECTORY));
  // Some file systems cannot sync a folder and say EINVAL; their renames are durable by themselves.
  if (::fsync(handle.fd()) != 0 && errno != EINVAL) return ErrnoStatus(folder, "fsync", errno);
  return OkStatus();
}

Status MakeFolders(const std::filesystem::path& folder) {
  struct stat info {};
  if (folder.empty() || ::stat(folder.c_str(), &info) == 0) {
    if (folder.empty() || S_ISDIR(info.st_mode)) return OkStatus();
    return ErrnoStatus(folder, "make folder", ENOTDIR);
  }
  const std::filesystem::path parent = folder.parent_path();
  if (parent != folder) WEFT_TRY(MakeFolders(parent));
  if (::mkdir(folder.c_str(), 0777) != 0 && errno != EEXIST) {
    return ErrnoStatus(folder, "make folder", errno);
  }
  return SyncFolder(parent.empty() ? std::filesystem::path(".") : parent);
}

Status RenameDurably(const std::filesystem::path& from, const std::filesystem::path& to) {
  Pass(Failpoint::kBeforeRename);
  if (::rename(from.c_str(), to.c_str()) != 0) {
    return ErrnoStatus(from, "rename to " + to.filename().string(), errno);
  }
  WEFT_TRY(SyncFolder(to.has_parent_path() ? to.parent_path() : std::filesystem::path(".")));
  Pass(Failpoint::kAfterRename);
  return OkStatus();
}

Status ReplaceFile(const std::filesystem::path& path, const std::filesystem::path& temp,
                   ByteSpan bytes) {
  const auto write = [&]() -> Status {
    WEFT_TRY_ASSIGN(const FileHandle file, OpenFile(temp, O_WRONLY | O_CREAT | O_TRUNC));
    WEFT_TRY(WriteAt(file, temp, 0, bytes));
    return SyncFile(file, temp);
  };
  Status status = write();
  if (status.ok()) status = RenameDurably(temp, path);
  if (!status.ok()) ::unlink(temp.c_str());
  return status;
}

Status RemoveFile(const std::filesystem::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT && errno != ENOTDIR) {
    return ErrnoStatus(path, "remove", errno);
  }
  return OkStatus();
}

Result<Blob> ReadFilePart(const std::filesystem::path& path, uint64_t offset, uint64_t length) {
  WEFT_TRY_ASSIGN(const FileHandle file, OpenFile(path, O_RDONLY));
  struct stat info {};
  if (::fstat(file.fd(), &info) != 0) return ErrnoStatus(path, "stat", errno);
  const auto size = static_cast<uint64_t>(info.st_size);
  if (offset > size || length > size - offset) {
    return DataLoss(Str("[store] ", path.string(), ": it has ", size, " bytes, wanted ", length,
                        " at offset ", offset));
  }
  std::vector<std::byte> bytes(length);
  for (uint64_t done = 0; done < length;) {
    const ssize_t got = Uninterrupted([&] {
      return ::pread(file.fd(), bytes.data() + done, length - done,
                     static_cast<off_t>(offset + done));
    });
    if (got < 0) return ErrnoStatus(path, "read", errno);
    if (got == 0) return DataLoss(Str("[store] ", path.string(), ": it shrank while being read"));
    done += static_cast<uint64_t>(got);
  }
  return Blob::Adopt(std::move(bytes));
}

Result<Blob> MapFile(const std::filesystem::path& path) {
  WEFT_TRY_ASSIGN(const FileHandle file, OpenFile(path, O_RDONLY));
  struct stat info {};
  if (::fstat(file.fd(), &info) != 0) return ErrnoStatus(path, "stat", errno);
  if (!S_ISREG(info.st_mode)) return NotFound(Str("[store] ", path.string(), ": not a file"));
  const auto bytes = static_cast<size_t>(info.st_size);
  if (bytes == 0) return Blob();
  void* address = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (address == MAP_FAILED) return ErrnoStatus(path, "map", errno);
  std::shared_ptr<const void> owner(
      address, [bytes](const void* mapped) { ::munmap(const_cast<void*>(mapped), bytes); });
  return Blob::Share({static_cast<const std::byte*>(address), bytes}, std::move(owner));
}

}  // namespace weft
