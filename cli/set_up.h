#pragma once
// The SetUp function of every command file, in alphabetical order; see command.h.

#include "cli/command.h"

namespace weft::cli {

Action SetUpVersion(CLI::App& app);

}  // namespace weft::cli
