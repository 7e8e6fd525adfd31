#pragma once
// --method and --option name=value: which adapter method a command trains, and the method's own
// options (docs/methods.md), as [adapter] method and options say in a run file.

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "common/base/result.h"
#include "common/plan/adapter_spec.h"

namespace weft::cli {

void AddMethodOptions(CLI::App& app, std::string& method, std::vector<std::string>& options);

/// Adds "k=64" or "nola.k=64" to a spec of method nola. kInvalidArgument without a name or "=".
[[nodiscard]] Status AddOptions(const std::vector<std::string>& options, AdapterSpec& spec);

}  // namespace weft::cli
