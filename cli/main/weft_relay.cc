// weft-relay relay.toml [--set section.key=value]...

#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/check_run.h"
#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/failpoint_flags.h"
#include "cli/setting_flags.h"
#include "common/config/load.h"
#include "relay/daemon.h"

namespace {

struct Flags {
  weft::SettingsSource source;
  std::vector<weft::cli::SettingFlag> settings = {
      {"--name", "relay.name", "the relay's name on the allow-list above"},
      {"--server", "relay.address", "tcp://host:port of the aggregator above"},
      {"--server-key", "relay.public-key", "that aggregator's public key, or its file"},
      {"--key", "relay.secret-key", "the relay's .secret file"},
      {"--dir", "run.dir", "folder of the relay's own state"}};
};

weft::Status Run(const Flags& flags, bool* refused) {
  weft::RelayDaemon daemon;
  WEFT_TRY_ASSIGN(daemon.settings, weft::LoadSettings(flags.source));
  weft::ClientSettings unused;
  WEFT_TRY(weft::cli::SetGiven(flags.settings, daemon.settings, unused));
  WEFT_TRY(weft::cli::CheckRun(daemon.settings));
  return weft::RunRelayDaemon(daemon, refused);
}

}  // namespace

int main(int argc, char** argv) {
  if (weft::cli::ListFailpoints(argc, argv, "relay")) return weft::cli::kExitCompleted;
  CLI::App app{
      "Stands between an aggregator and some of its clients: the aggregator of these, one client "
      "to the other"};
  app.footer(
      "Exit codes: 0 completed, 1 failed, 2 usage, 3 refused by the aggregator above, 4 stopped "
      "(SIGTERM, weft runs stop), 70 a bug of ours");
  Flags flags;
  std::string file;
  app.add_option("config", file, "the relay's TOML file (docs/operating.md)")->required();
  app.add_option("--set", flags.source.overrides,
                 "section.key=value, over the file; may be repeated")
      ->allow_extra_args(false);
  weft::cli::AddSettingFlags(app, flags.settings);
  weft::cli::AddFailpointFlags(app, "relay");
  app.set_version_flag("--version", "weft-relay 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return weft::cli::ExitOfParseError(app, error, "weft-relay");
  }
  flags.source.file = file;
  return weft::cli::RunDaemon("weft-relay", [&](bool* refused) { return Run(flags, refused); });
}
