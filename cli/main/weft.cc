#include "cli/command.h"

int main(int argc, char** argv) { return weft::cli::RunCommandLine(argc, argv); }
