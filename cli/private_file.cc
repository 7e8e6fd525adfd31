#include "cli/private_file.h"

#include <cerrno>
#include <cstring>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/base/str.h"

namespace weft::cli {

Status WritePrivateFile(const std::filesystem::path& path, std::string_view text) {
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0 && errno == EEXIST) return AlreadyExists(Str(path.string(), " is there already"));
  Status status;
  size_t written = 0;
  while (file >= 0 && written < text.size()) {
    const ssize_t count = ::write(file, text.data() + written, text.size() - written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) break;
    written += static_cast<size_t>(count);
  }
  if (file < 0 || written < text.size()) {
    status = ResourceExhausted(Str(path.string(), ": ", std::strerror(errno)));
  }
  if (file >= 0 && ::close(file) != 0 && status.ok()) {
    status = ResourceExhausted(Str(path.string(), ": ", std::strerror(errno)));
  }
  return status;
}

}  // namespace weft::cli
