// `weft config reference`: every setting there is. `weft config show FILE`: those in effect.

#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "cli/set_up.h"
#include "common/config/load.h"

namespace weft::cli {
namespace {

struct ShowOptions {
  std::string file;
  std::vector<std::string> overrides;
  bool changed = false;
};

Status Show(const ShowOptions& options) {
  WEFT_TRY_ASSIGN(const Settings settings,
                  LoadSettings({.file = options.file, .overrides = options.overrides}));
  std::cout << ToToml(settings, !options.changed);
  return OkStatus();
}

}  // namespace

Action SetUpConfigReference(CLI::App&) {
  return [] {
    std::cout << SettingsReference();
    return OkStatus();
  };
}

Action SetUpConfigShow(CLI::App& app) {
  auto options = std::make_shared<ShowOptions>();
  app.add_option("FILE", options->file, "TOML file (default: none, the defaults)");
  app.add_option("--set", options->overrides, "section.key=value")->allow_extra_args(false);
  app.add_flag("--changed", options->changed, "only what differs from the defaults");
  return [options] { return Show(*options); };
}

}  // namespace weft::cli
