#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/table.h"
#include "common/base/check.h"

namespace weft::cli {
namespace {

struct Parser {
  CLI::App app{
      "Weft: federated fine-tuning of language models across sites that do not share data"};
  std::map<std::string, CLI::App*> groups;
  std::string chosen;
  Action action;
};

// "bench train" hangs below a group app "bench", made on first use.
CLI::App* ParentOf(Parser& parser, std::string& name) {
  const size_t space = name.find(' ');
  if (space == std::string::npos) return &parser.app;
  const std::string group = name.substr(0, space);
  name = name.substr(space + 1);
  CLI::App*& app = parser.groups[group];
  if (app == nullptr) {
    app = parser.app.add_subcommand(group, group + " commands");
    app->require_subcommand(1);
  }
  return app;
}

void Add(Parser& parser, const Command& command) {
  std::string name = command.name;
  CLI::App* parent = ParentOf(parser, name);
  CLI::App* sub = parent->add_subcommand(name, command.help);
  Action action = command.set_up(*sub);
  sub->final_callback([&parser, full = std::string(command.name), action = std::move(action)] {
    parser.chosen = full;
    parser.action = action;
  });
}

// A word where a command belongs is named, with those there are; CLI11 only says that one is
// missing.
std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error) {
  std::string names;
  for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
    names += (names.empty() ? "" : ", ") + sub->get_name();
  }
  if (names.empty()) return error.what();
  const std::vector<std::string> rest = app.remaining();
  if (rest.empty()) return "wanted a command: " + names;
  if (rest.front().starts_with('-')) return error.what();
  return "no command \"" + rest.front() + "\", wanted one of " + names;
}

}  // namespace

int ExitOfParseError(const CLI::App& app, const CLI::ParseError& error,
                     const std::string& program) {
  if (error.get_exit_code() == static_cast<int>(CLI::ExitCodes::Success)) return app.exit(error);
  std::string words = program;
  const CLI::App* innermost = &app;
  while (!innermost->get_subcommands().empty()) {
    innermost = innermost->get_subcommands().front();
    words += " " + innermost->get_name();
  }
  std::cerr << words << ": error: " << UsageMessage(*innermost, error) << "; see " << words
            << " --help\n";
  return kExitUsage;
}

int Guarded(const char* program, const std::function<Status()>& body) {
  Status status;
  try {
    status = body();
  } catch (const CheckFailure& failure) {
    std::cerr << program << ": internal error: " << OneLine(failure.what()) << "\n";
    return 70;
  } catch (const std::exception& failure) {
    // Torch's exceptions go on with a backtrace, which helps nobody who reads this.
    const std::string what = failure.what();
    std::cerr << program << ": internal error: unexpected exception: "
              << OneLine(what.substr(0, what.find('\n'))) << "\n";
    return 70;
  }
  std::cout.flush();
  if (status.ok() && !std::cout.good()) {
    status = ResourceExhausted("stdout cannot be written; is the disk full?");
  }
  if (status.ok()) return 0;
  // A message may quote a file or a peer, which must not speak to the terminal.
  const int code = ExitCodeOf(status, /*refused=*/false);
  std::cerr << program << (code == kExitStopped ? ": stopped: " : ": error: ")
            << OneLine(status.message()) << "\n";
  return code;
}

int RunCommandLine(int argc, const char* const* argv) {
  Parser parser;
  parser.app.require_subcommand(1);
  parser.app.footer("Exit codes: 0 done, 1 failed, 2 usage, 4 stopped, 70 a bug of ours");
  parser.app.set_version_flag("--version", "weft 0.1.0");
  for (const Command& command : Commands()) Add(parser, command);
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return ExitOfParseError(parser.app, error, "weft");
  }
  return Guarded(("weft " + parser.chosen).c_str(), parser.action);
}

}  // namespace weft::cli
