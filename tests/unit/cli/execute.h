#pragma once
// Runs a `weft` command as a script does: arguments in, what it writes and its outcome out.

#include <algorithm>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "cli/command.h"

namespace weft::cli {

struct Outcome {
  Status status;
  std::string out;
  std::string err;
};

/// One command; a ParseError (wrong usage) is thrown.
inline Outcome Execute(Action (*set_up)(CLI::App&), std::vector<std::string> args) {
  CLI::App app;
  const Action action = set_up(app);
  std::reverse(args.begin(), args.end());  // CLI11 takes a vector from its end
  app.parse(args);
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  Outcome outcome;
  outcome.status = action();
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

/// `defaults` (options and their values) without those that `args` gives itself, then `args`.
inline std::vector<std::string> Over(
    const std::vector<std::pair<std::string, std::string>>& defaults,
    const std::vector<std::string>& args) {
  std::vector<std::string> all;
  for (const auto& [option, value] : defaults) {
    if (std::find(args.begin(), args.end(), option) != args.end()) continue;
    all.push_back(option);
    all.push_back(value);
  }
  all.insert(all.end(), args.begin(), args.end());
  return all;
}

struct LineOutcome {
  int code = -1;
  std::string out;
  std::string err;
};

/// A whole command line: `weft` and these words.
inline LineOutcome RunLine(const std::vector<std::string>& words) {
  std::vector<const char*> argv = {"weft"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  LineOutcome outcome;
  outcome.code = RunCommandLine(static_cast<int>(argv.size()), argv.data());
  outcome.out = ::testing::internal::GetCapturedStdout();
  outcome.err = ::testing::internal::GetCapturedStderr();
  return outcome;
}

inline std::vector<std::string> Lines(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

}  // namespace weft::cli
