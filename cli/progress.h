#pragma once
// Progress: one line that is drawn over and over on a terminal; in a pipe nothing, so that what a
// command prints stays plain. Goes to stderr: stdout is for results.

#include <chrono>
#include <cstdint>
#include <ostream>
#include <string>

namespace weft::cli {

/// "label  [=====>    ]  50 %  12/24  suffix", exactly as wide as `columns` allows.
[[nodiscard]] std::string ProgressLine(const std::string& label, uint64_t done, uint64_t total,
                                       const std::string& suffix, size_t columns);

class Progress {
 public:
  /// `total` 0: unknown, a count is shown instead of a bar.
  Progress(std::string label, uint64_t total);
  /// Wipes the line.
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  /// Draws at most ten times a second; the last step is always drawn.
  void Update(uint64_t done, const std::string& suffix = "");
  /// Prints a whole line above the bar.
  void Line(std::ostream& out, const std::string& text);

 private:
  void Wipe();

  const std::string label_;
  const uint64_t total_;
  const bool shown_;
  bool drawn_ = false;
  std::chrono::steady_clock::time_point next_{};
};

}  // namespace weft::cli
