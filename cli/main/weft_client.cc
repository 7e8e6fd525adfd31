// weft-client run.toml --name alpha | site.toml | flags only; --check tries it all without joining.

#include <cmath>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/command.h"
#include "cli/exit_code.h"
#include "cli/failpoint_flags.h"
#include "cli/setting_flags.h"
#include "client/daemon.h"
#include "common/base/str.h"
#include "common/config/load.h"

namespace {

struct Flags {
  std::string file;
  std::vector<std::string> overrides;
  std::string name;
  std::vector<weft::cli::SettingFlag> settings = {
      {"--server", "server.address", "tcp://host:port of the aggregator"},
      {"--server-key", "server.public-key", "the aggregator's public key, or its file"},
      {"--key", "client.secret-key", "the site's .secret file"},
      {"--model", "model.path", "folder of the base model"},
      {"--data", "client.data", "training rows, JSONL"},
      {"--valid", "client.valid", "validation rows, JSONL"},
      {"--rank", "client.rank", "largest rank to train, or auto"},
      {"--dir", "client.dir", "folder of the client's own state"},
      {"--device", "model.device", "cpu, cuda, cuda:N or auto"}};
  std::optional<double> link_mbps;
  bool check = false;
};

weft::Result<weft::ClientDaemon> Assemble(const Flags& flags) {
  weft::SettingsSource source;
  source.file = flags.file;
  source.overrides = flags.overrides;
  weft::ClientDaemon daemon;
  WEFT_TRY_ASSIGN(daemon.settings, weft::LoadSettings(source));
  WEFT_TRY_ASSIGN(daemon.client, weft::ChooseClient(daemon.settings, flags.name));
  WEFT_TRY(weft::SetFromFlag(daemon.settings, daemon.client, "--name", "client.name",
                             daemon.client.name));
  WEFT_TRY(weft::cli::SetGiven(flags.settings, daemon.settings, daemon.client));
  if (!flags.link_mbps) return daemon;
  if (!(*flags.link_mbps > 0) || !std::isfinite(*flags.link_mbps)) {
    return weft::InvalidArgument(
        weft::Str("--link-mbps: got ", *flags.link_mbps, ", wanted a number above 0"));
  }
  daemon.link_mbps = *flags.link_mbps;
  return daemon;
}

weft::Status Run(const Flags& flags, bool* refused) {
  WEFT_TRY_ASSIGN(const weft::ClientDaemon daemon, Assemble(flags));
  if (!flags.check) return weft::RunClientDaemon(daemon, refused);
  WEFT_TRY(weft::CheckClient(daemon, std::cout, refused));
  std::cout << "\ncheck: ok\n";
  return weft::OkStatus();
}

void AddFlags(CLI::App& app, Flags& flags) {
  app.add_option("config", flags.file, "the site's join file, or the run's file with --name");
  app.add_option("--set", flags.overrides, "section.key=value, over the file; may be repeated")
      ->allow_extra_args(false);
  app.add_option("--name", flags.name, "the site's name on the allow-list");
  weft::cli::AddSettingFlags(app, flags.settings);
  app.add_option("--link-mbps", flags.link_mbps, "speed of the link, for --rank auto");
  app.add_flag("--check", flags.check,
               "try data, memory, key and link without joining, and say what would leave the site");
}

}  // namespace

int main(int argc, char** argv) {
  if (weft::cli::ListFailpoints(argc, argv, "client")) return weft::cli::kExitCompleted;
  CLI::App app{"Takes part in a federated run with one site's data, which stays here"};
  app.footer(
      "Exit codes: 0 completed, 1 failed, 2 usage, 3 refused by the aggregator, 4 stopped, 70 a "
      "bug of ours");
  Flags flags;
  AddFlags(app, flags);
  weft::cli::AddFailpointFlags(app, "client");
  app.set_version_flag("--version", "weft-client 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return weft::cli::ExitOfParseError(app, error, "weft-client");
  }
  return weft::cli::RunDaemon("weft-client", [&](bool* refused) { return Run(flags, refused); });
}
