#pragma once
// LineReader: the lines of a file or of stdin one after another, each of a bounded length, counted
// for error messages. One thread.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "common/base/result.h"

namespace weft {

class LineReader {
 public:
  /// kNotFound for a file that cannot be opened, kInvalidArgument for a folder.
  [[nodiscard]] static Result<LineReader> Open(const std::filesystem::path& path);
  [[nodiscard]] static LineReader Stdin();

  /// The next line without its end; false when there is none. kResourceExhausted for one longer
  /// than limits::kJsonlLineBytesMax: a stream without line ends must not fill the memory.
  [[nodiscard]] Result<bool> Next(std::string& line);

  /// "PATH:LINE", of the line that Next gave last; lines count from 1.
  [[nodiscard]] std::string where() const;
  [[nodiscard]] uint64_t number() const { return number_; }

 private:
  struct Close {
    bool owned = true;
    void operator()(std::FILE* file) const {
      if (owned) std::fclose(file);
    }
  };

  LineReader(std::FILE* file, bool owned, std::string name)
      : file_(file, Close{owned}), name_(std::move(name)) {}

  std::unique_ptr<std::FILE, Close> file_;
  std::string name_;
  uint64_t number_ = 0;
};

}  // namespace weft
