#pragma once
// A fuzz target: a function that takes any bytes and checks what must hold for all of them. The
// same table feeds libFuzzer (driver/libfuzzer.cc) and the ordinary tests (smoke/). Any thread.

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft::fuzz {

using Seeds = std::vector<std::string>;

struct Target {
  std::string_view name;
  /// Returns whatever the input; a property that does not hold is a CheckFailure.
  void (*run)(std::string_view input);
  /// Well-formed inputs, from which mutations reach far into the code.
  Seeds (*seeds)();
  /// Words of the format, which a mutation may put in.
  std::vector<std::string_view> words = {};
};

/// All targets, in the order of registry.cc.
[[nodiscard]] std::span<const Target> Targets();

/// What stands between the parts of an input that has several. No UTF-8 text holds it.
inline constexpr char kSeparator = '\xFF';

/// The parts of `input`: exactly `count`, the last takes what is left, missing ones are empty.
[[nodiscard]] std::vector<std::string_view> Parts(std::string_view input, size_t count);

/// The texts of a list as one input.
[[nodiscard]] std::string Joined(const std::vector<std::string>& parts);

/// A file in memory, for code that takes a path; gone with its owner.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view content);
  ~MemoryFile();
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  int fd_;
  std::string path_;
};

}  // namespace weft::fuzz
