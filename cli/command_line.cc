#include <iostream>
#include <map>
#include <string>

#include "cli/command.h"
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

}  // namespace

int Guarded(const char* program, const std::function<Status()>& body) {
  Status status;
  try {
    status = body();
  } catch (const CheckFailure& failure) {
    std::cerr << program << ": internal error: " << failure.what() << "\n";
    return 70;
  } catch (const std::exception& failure) {
    std::cerr << program << ": internal error: unexpected exception: " << failure.what() << "\n";
    return 70;
  }
  if (status.ok()) return 0;
  std::cout.flush();
  std::cerr << program << ": error: " << status.message() << "\n";
  return 1;
}

int RunCommandLine(int argc, const char* const* argv) {
  Parser parser;
  parser.app.require_subcommand(1);
  parser.app.set_version_flag("--version", "weft 0.1.0");
  for (const Command& command : Commands()) Add(parser, command);
  try {
    parser.app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return parser.app.exit(error) == 0 ? 0 : 2;
  }
  return Guarded(("weft " + parser.chosen).c_str(), parser.action);
}

}  // namespace weft::cli
