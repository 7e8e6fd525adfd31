#pragma once
// One `weft` subcommand per file: a SetUp function adds options to its CLI11 app and returns what
// runs after parsing. registry.cc is the one table of commands. Exit codes: 0 done, 1 failed (the
// Status is printed to stderr), 2 usage.

#include <functional>
#include <span>
#include <string>

#include <CLI/CLI.hpp>

#include "common/base/status.h"

namespace weft::cli {

using Action = std::function<Status()>;

struct Command {
  const char* name;  // "tokenize"; nested ones with a space: "bench train"
  const char* help;
  Action (*set_up)(CLI::App& app);
};

/// Every command there is, in the order --help shows them.
[[nodiscard]] std::span<const Command> Commands();

/// Parses argv, runs the chosen command, prints a failure as "weft tokenize: error: …"; returns the
/// exit code.
[[nodiscard]] int RunCommandLine(int argc, const char* const* argv);

/// What main() returns for a command line that CLI11 refused: 0 after --help and --version, else 2
/// and "program: error: …" on stderr.
[[nodiscard]] int ExitOfParseError(const CLI::App& app, const CLI::ParseError& error,
                                   const std::string& program);

/// Runs `body`, turning a Status or an escaped CheckFailure into a message on stderr and an exit
/// code (exit_code.h); output that could not be written is a failure too. For main() only.
[[nodiscard]] int Guarded(const char* program, const std::function<Status()>& body);

}  // namespace weft::cli
