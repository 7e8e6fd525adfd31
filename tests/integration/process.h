#pragma once
// A child process whose log a test reads as it is written. It is killed with its owner.

#include <cstdint>
#include <string>
#include <vector>

#include <sys/types.h>

namespace weft::testing {

class Process {
 public:
  /// Starts the program of the build's bin folder; its stderr comes here, its stdout is dropped.
  Process(const std::string& program, const std::vector<std::string>& arguments);
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  /// Reads its log until a line holds all of `words`; false when it ends or `limit_s` is over.
  [[nodiscard]] bool WaitForLine(const std::vector<std::string>& words, double limit_s = 120);
  /// Reads its log to its end; the exit code, or minus the signal that ended it.
  [[nodiscard]] int Wait();
  void Signal(int number) const;
  [[nodiscard]] pid_t pid() const { return pid_; }
  /// From now on no file it writes may grow beyond this, as on a full disk.
  void LimitFileBytes(uint64_t bytes) const;
  /// Everything it has logged so far.
  [[nodiscard]] const std::string& log() const { return log_; }

 private:
  /// False at the end of the log.
  bool ReadSome(double limit_s);

  pid_t pid_ = -1;
  int pipe_ = -1;
  std::string log_;
  size_t searched_ = 0;
  bool ended_ = false;
};

}  // namespace weft::testing
