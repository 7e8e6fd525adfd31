#pragma once
// `weft-sim torture`: many seeds of faults through small federations, in processes of their own.

#include <CLI/CLI.hpp>

#include "cli/command.h"

namespace weft::cli {

/// Adds the flags; the action returned runs it.
[[nodiscard]] Action SetUpTorture(CLI::App& app);

}  // namespace weft::cli
