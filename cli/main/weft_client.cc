// weft-client run.toml --name alpha | site.toml | flags only; --check tries it all without joining.

#include <iostream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "cli/exit_code.h"
#include "client/daemon.h"
#include "common/config/load.h"

namespace {

struct Flags {
  std::string file;
  std::vector<std::string> overrides;
  std::string name, server, server_key, key, model, data, valid, rank, dir, device;
  double link_mbps = 0;
  bool check = false;
};

void Over(std::string& setting, const std::string& flag) {
  if (!flag.empty()) setting = flag;
}

weft::Result<weft::ClientDaemon> Assemble(const Flags& flags) {
  weft::SettingsSource source;
  source.file = flags.file;
  source.overrides = flags.overrides;
  weft::ClientDaemon daemon;
  WEFT_TRY_ASSIGN(daemon.settings, weft::LoadSettings(source));
  WEFT_TRY_ASSIGN(daemon.client, weft::ChooseClient(daemon.settings, flags.name));
  Over(daemon.settings.server.address, flags.server);
  Over(daemon.settings.server.public_key, flags.server_key);
  Over(daemon.settings.model.path, flags.model);
  Over(daemon.settings.model.device, flags.device);
  Over(daemon.client.secret_key, flags.key);
  Over(daemon.client.data, flags.data);
  Over(daemon.client.valid, flags.valid);
  Over(daemon.client.rank, flags.rank);
  Over(daemon.client.dir, flags.dir);
  daemon.link_mbps = flags.link_mbps;
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
  app.add_option("--set", flags.overrides, "section.key=value, over the file; may be repeated");
  app.add_option("--name", flags.name, "the site's name on the allow-list");
  app.add_option("--server", flags.server, "tcp://host:port of the aggregator");
  app.add_option("--server-key", flags.server_key, "the aggregator's public key, or its file");
  app.add_option("--key", flags.key, "the site's .secret file");
  app.add_option("--model", flags.model, "folder of the base model");
  app.add_option("--data", flags.data, "training rows, JSONL");
  app.add_option("--valid", flags.valid, "validation rows, JSONL");
  app.add_option("--rank", flags.rank, "rank to train, or auto");
  app.add_option("--dir", flags.dir, "folder of the client's own state");
  app.add_option("--device", flags.device, "cpu, cuda, cuda:N or auto");
  app.add_option("--link-mbps", flags.link_mbps, "speed of the link, for --rank auto");
  app.add_flag("--check", flags.check,
               "try data, memory, key and link without joining, and say what would leave the site");
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app{"Takes part in a federated run with one site's data, which stays here"};
  app.footer("Exit codes: 0 completed, 1 failed, 2 usage, 3 refused by the aggregator, 4 stopped");
  Flags flags;
  AddFlags(app, flags);
  app.set_version_flag("--version", "weft-client 0.1.0");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : weft::cli::kExitUsage;
  }
  return weft::cli::RunDaemon("weft-client", [&](bool* refused) { return Run(flags, refused); });
}
