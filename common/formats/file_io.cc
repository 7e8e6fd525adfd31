#include "common/formats/file_io.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

namespace weft {
namespace {

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() { Close(); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  [[nodiscard]] int get() const { return fd_; }
  int Close() { return fd_ < 0 ? 0 : ::close(std::exchange(fd_, -1)); }

 private:
  int fd_;
};

Status SystemError(std::string_view what, const std::filesystem::path& path, int error) {
  std::string message = Str("[file] ", path.string(), ": ", what, ": ", std::strerror(error));
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return NotFound(std::move(message));
    case EACCES:
    case EPERM:
    case EROFS:
      return PermissionDenied(std::move(message));
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
    case ENOMEM:
    case EMFILE:
      return ResourceExhausted(std::move(message));
    default:
      return Internal(std::move(message));
  }
}

// Opens for reading; folders and devices are refused, for they have no size.
Result<size_t> SizeOfRegularFile(const Descriptor& file, const std::filesystem::path& path) {
  struct stat info {};
  if (::fstat(file.get(), &info) != 0) return SystemError("cannot be read", path, errno);
  if (!S_ISREG(info.st_mode)) {
    return InvalidArgument(Str("[file] ", path.string(), ": got a ",
                               S_ISDIR(info.st_mode) ? "folder" : "device or pipe",
                               ", wanted a regular file"));
  }
  return static_cast<size_t>(info.st_size);
}

Status WriteAll(int fd, ByteSpan bytes, const std::filesystem::path& path) {
  while (!bytes.empty()) {
    const size_t block = std::min(bytes.size(), size_t{1} << 30);
    const ssize_t wrote = ::write(fd, bytes.data(), block);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote < 0) return SystemError("cannot be written", path, errno);
    bytes = bytes.subspan(static_cast<size_t>(wrote));
  }
  return OkStatus();
}

// The temporary file of WriteFileAtomically; removed unless it was renamed.
struct Temporary {
  std::string path;
  bool kept = false;
  ~Temporary() {
    if (!kept) ::unlink(path.c_str());
  }
};

}  // namespace

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::filesystem::path& path) {
  // Non-blocking, so that a pipe is refused instead of waited for; no effect on regular files.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return SystemError("cannot be opened", path, errno);
  WEFT_TRY_ASSIGN(const size_t size, SizeOfRegularFile(file, path));
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(ByteSpan{}));
  void* const address = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) return SystemError("cannot be mapped", path, errno);
  return std::shared_ptr<const MappedFile>(
      new MappedFile(ByteSpan(static_cast<const std::byte*>(address), size)));
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

Blob MappedFile::AsBlob(std::shared_ptr<const MappedFile> file) {
  const ByteSpan bytes = file->span();
  return Blob::Share(bytes, std::move(file));
}

Result<std::string> ReadFile(const std::filesystem::path& path, size_t bytes_max) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) return SystemError("cannot be opened", path, errno);
  WEFT_TRY_ASSIGN(const size_t size, SizeOfRegularFile(file, path));
  if (size > bytes_max) {
    return ResourceExhausted(
        Str("[file] ", path.string(), ": got ", size, " bytes, wanted at most ", bytes_max));
  }
  std::string text(size, '\0');
  size_t have = 0;
  while (have < size) {
    const ssize_t got = ::read(file.get(), text.data() + have, size - have);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("cannot be read", path, errno);
    if (got == 0) break;  // shortened meanwhile; what is left is what the file now holds
    have += static_cast<size_t>(got);
  }
  text.resize(have);
  return text;
}

Status WriteFileAtomically(const std::filesystem::path& path, std::span<const ByteSpan> parts) {
  Temporary temporary{path.string() + ".tmp-XXXXXX"};
  Descriptor file(::mkostemp(temporary.path.data(), O_CLOEXEC));
  if (file.get() < 0) {
    temporary.kept = true;  // there is nothing to remove
    return SystemError("cannot be created", path, errno);
  }
  if (::fchmod(file.get(), 0644) != 0) return SystemError("cannot be written", path, errno);
  for (const ByteSpan part : parts) WEFT_TRY(WriteAll(file.get(), part, path));
  if (::fsync(file.get()) != 0) return SystemError("cannot be flushed", path, errno);
  if (file.Close() != 0) return SystemError("cannot be closed", path, errno);
  if (std::rename(temporary.path.c_str(), path.c_str()) != 0) {
    return SystemError("cannot be replaced", path, errno);
  }
  temporary.kept = true;
  const std::filesystem::path parent = path.has_parent_path() ? path.parent_path() : ".";
  const Descriptor folder(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (folder.get() < 0 || ::fsync(folder.get()) != 0) {
    return SystemError("folder cannot be flushed", parent, errno);
  }
  return OkStatus();
}

Status WriteFileAtomically(const std::filesystem::path& path, std::string_view text) {
  const ByteSpan part = AsBytes(text);
  return WriteFileAtomically(path, std::span<const ByteSpan>(&part, 1));
}

}  // namespace weft
