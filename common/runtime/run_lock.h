#pragma once
// RunLock: one process works on a run folder. An open-file-description lock on `<folder>/lock`,
// which the system drops when the process ends, however it ends; the file holds the owner's pid.

#include <filesystem>
#include <optional>

#include "common/base/result.h"
#include "common/runtime/durable_file.h"

namespace weft {

inline constexpr const char* kLockFile = "lock";

class RunLock {
 public:
  /// Makes the file if needed. kAlreadyExists, naming the owner's pid, if another holds it.
  [[nodiscard]] static Result<RunLock> Acquire(const std::filesystem::path& folder);

 private:
  explicit RunLock(FileHandle file) : file_(std::move(file)) {}
  FileHandle file_;
};

/// The pid of the process that holds the folder, 0 if it is held by an unknown one, nothing if it
/// is free. Only looks: never makes another's Acquire fail.
[[nodiscard]] std::optional<int64_t> RunLockOwner(const std::filesystem::path& folder);

}  // namespace weft
