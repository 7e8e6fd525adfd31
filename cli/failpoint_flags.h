#pragma once
// --failpoint and --list-failpoints of the daemons.

#include <CLI/CLI.hpp>

namespace weft::cli {

/// `process`: "aggregator" or "client".
void AddFailpointFlags(CLI::App& app, const char* process);

/// Prints them where the command line asks for that, whatever else it lacks; was it asked?
[[nodiscard]] bool ListFailpoints(int argc, const char* const* argv, const char* process);

}  // namespace weft::cli
