#pragma once
// One run of a built program to its end, as a shell script sees it: arguments and stdin in, exit
// code, stdout and stderr out. A program that does not end in time is killed, which is a failure.

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace weft::testing {

struct Ran {
  int code = 0;  // minus the signal, where one ended it
  std::string out;
  std::string err;
  std::string line;  // the command line, for messages
};

struct RunOptions {
  std::string input = {};
  std::vector<std::string> environment = {};  // NAME=value, beside what the test has
  double limit_s = 60;
};

/// Runs a program of the build's bin folder.
[[nodiscard]] Ran Execute(const std::string& program, const std::vector<std::string>& arguments,
                          const RunOptions& options = {});

/// `code`, a message "PROGRAM: error: …" on stderr that holds all of `words`, nothing on stdout,
/// and no sign that a bug of ours or torch's own backtrace reached the user.
[[nodiscard]] ::testing::AssertionResult Refused(const Ran& ran,
                                                 const std::vector<std::string>& words,
                                                 int code = 1);

/// Exit code 0.
[[nodiscard]] ::testing::AssertionResult Succeeded(const Ran& ran);

}  // namespace weft::testing
