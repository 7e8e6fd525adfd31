#include "common/formats/line_reader.h"

#include <cerrno>
#include <cstring>

#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {

Result<LineReader> LineReader::Open(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored)) {
    return InvalidArgument(Str("[data] ", path.string(), ": got a folder, wanted a JSONL file"));
  }
  std::FILE* const file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return NotFound(Str("[data] ", path.string(), ": ", std::strerror(errno)));
  }
  return LineReader(file, true, path.string());
}

LineReader LineReader::Stdin() { return {stdin, false, "stdin"}; }

std::string LineReader::where() const { return Str(name_, ":", number_); }

Result<bool> LineReader::Next(std::string& line) {
  line.clear();
  ++number_;
  while (true) {
    const int c = getc_unlocked(file_.get());
    if (c == '\n') return true;
    if (c == EOF && std::ferror(file_.get()) != 0) {
      return DataLoss(Str("[data] ", where(), ": reading failed: ", std::strerror(errno)));
    }
    if (c == EOF) return !line.empty();
    if (line.size() == limits::kJsonlLineBytesMax) {
      return ResourceExhausted(Str("[data] ", where(), ": the line is longer than ",
                                   limits::kJsonlLineBytesMax, " bytes"));
    }
    line.push_back(static_cast<char>(c));
  }
}

}  // namespace weft
