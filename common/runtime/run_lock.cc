#include "common/runtime/run_lock.h"

#include <array>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>

#include <fcntl.h>
#include <unistd.h>

#include "common/base/str.h"

namespace weft {
namespace {

struct flock WholeFile() {
  struct flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_whence = SEEK_SET;
  return lock;
}

int64_t ReadPid(const FileHandle& file) {
  std::array<char, 32> text{};
  const ssize_t size = ::pread(file.fd(), text.data(), text.size(), 0);
  int64_t pid = 0;
  if (size > 0) std::from_chars(text.data(), text.data() + size, pid);
  return pid;
}

}  // namespace

Result<RunLock> RunLock::Acquire(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / kLockFile;
  WEFT_TRY_ASSIGN(FileHandle file, OpenFile(path, O_RDWR | O_CREAT));
  struct flock lock = WholeFile();
  if (::fcntl(file.fd(), F_OFD_SETLK, &lock) != 0) {
    if (errno != EAGAIN && errno != EACCES) return ErrnoStatus(path, "lock", errno);
    return AlreadyExists(Str("[store] ", folder.string(), ": in use by process ", ReadPid(file),
                             ": one aggregator works on a run folder; stop that one, or give this ",
                             "one its own folder (run.dir)"));
  }
  const std::string pid = Str(::getpid(), "\n");
  if (::ftruncate(file.fd(), 0) != 0) return ErrnoStatus(path, "truncate", errno);
  WEFT_TRY(WriteAt(file, path, 0, AsBytes(pid)));
  return RunLock(std::move(file));
}

std::optional<int64_t> RunLockOwner(const std::filesystem::path& folder) {
  const Result<FileHandle> file = OpenFile(folder / kLockFile, O_RDONLY);
  if (!file.ok()) return std::nullopt;
  struct flock lock = WholeFile();
  if (::fcntl(file->fd(), F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK) return std::nullopt;
  return ReadPid(*file);
}

}  // namespace weft
