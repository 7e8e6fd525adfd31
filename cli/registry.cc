// The one table of `weft` commands; a new command is one file and one line here.

#include <array>

#include "cli/command.h"
#include "cli/set_up.h"

namespace weft::cli {
namespace {

constexpr std::array kCommands = {
    Command{"version", "print the versions of Weft and its parts", SetUpVersion},
};

}  // namespace

std::span<const Command> Commands() { return kCommands; }

}  // namespace weft::cli
