// `weft init-relay`: a relay's files, made where it is to run from the join file that the
// aggregator above wrote for it: its configuration, keys and allow-list, and a join file for each
// of its own sites.

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "aggregator/strategies/strategy.h"
#include "cli/check_run.h"
#include "cli/join_files.h"
#include "cli/out_folder.h"
#include "cli/private_file.h"
#include "cli/set_up.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/formats/base_hash.h"
#include "common/net/keys.h"

namespace weft::cli {
namespace {

struct InitRelayOptions {
  JoinOptions join;
  std::string file;  // the relay's join file
  std::string out;
  bool json = false;
};

// The run as the relay's join file tells of it.
Result<Settings> RunOf(const InitRelayOptions& options) {
  SettingsSource source;
  source.file = options.file;
  source.environment = false;
  WEFT_TRY_ASSIGN(Settings settings, LoadSettings(source));
  if (settings.clients.size() != 1 || settings.server.public_key.empty()) {
    return InvalidArgument(Str("[init-relay] ", options.file,
                               ": this is no site's join file; `weft init` makes one for each site "
                               "that it is told of, name the relay among them"));
  }
  if (!options.join.model.empty()) settings.model.path = Absolute(options.join.model);
  WEFT_TRY_ASSIGN(const Strategy* strategy, FindStrategy(settings.strategy.name));
  if (strategy->traits().mixed_methods) return settings;
  return InvalidArgument(Str("[init-relay] the run's strategy is ", strategy->name(),
                             ", which takes no relays; exact-svd, flora, florist and fedask do"));
}

// The relay's file names its neighbours relatively, so the folder can be moved as a whole.
Settings RelayFile(const InitRelayOptions& options, const Settings& given) {
  const ClientSettings& self = given.clients.front();
  Settings settings = given;
  settings.run.dir = "run";
  settings.model.base = "base.json";
  settings.relay = {.name = self.name,
                    .address = given.server.address,
                    .public_key = given.server.public_key,
                    .secret_key = Absolute(self.secret_key)};
  settings.server.bind = BindOf(options.join.server);
  settings.server.address = options.join.server;
  settings.server.secret_key = "server.secret";
  settings.server.public_key.clear();
  settings.server.allow_list = "allow.txt";
  settings.cohort.min_available_nodes = static_cast<int64_t>(options.join.sites.size());
  settings.clients.clear();
  for (const std::string& site : options.join.sites) {
    ClientSettings client;
    client.name = site;
    client.rank = RankOf(options.join, settings, site);
    settings.clients.push_back(std::move(client));
  }
  return settings;
}

Status WriteRelay(const InitRelayOptions& options, const Settings& given) {
  const std::filesystem::path out(options.out);
  std::error_code error;
  if (std::filesystem::exists(out / "relay.toml", error)) {
    return AlreadyExists(Str("[init-relay] ", options.out,
                             " holds a relay already; choose another --out, or remove it (its keys "
                             "would be lost)"));
  }
  WEFT_TRY_ASSIGN(const BaseDescription base, DescribeBase(given.model.path));
  WEFT_TRY(PrepareOutFolder(out, given.model.path));
  WEFT_TRY(WriteBaseDescription(out / "base.json", base));
  WEFT_TRY_ASSIGN(const KeyPair server, NewKeyPair());
  WEFT_TRY(WriteKeyPair(server, out / "server"));
  JoinOptions join = options.join;
  join.model = given.model.path;
  WEFT_TRY(WriteJoinFiles(out, join, given, server.public_key));
  // Last: a folder with relay.toml is complete.
  return WritePrivateFile(out / "relay.toml", "# The relay's file: weft-relay relay.toml\n\n" +
                                                  ToToml(RelayFile(options, given), false));
}

Status InitRelay(const InitRelayOptions& options) {
  WEFT_TRY(CheckJoinOptions(options.join, "init-relay"));
  if (options.out.empty()) return InvalidArgument("[init-relay] --out: got an empty name");
  WEFT_TRY_ASSIGN(const Settings given, RunOf(options));
  WEFT_TRY(CheckRun(given));
  WEFT_TRY(WriteRelay(options, given));
  if (options.json) {
    nlohmann::ordered_json json = {{"out", options.out}, {"relay", options.out + "/relay.toml"}};
    for (const std::string& site : options.join.sites) {
      json["sites"][site] = options.out + "/" + site + ".toml";
    }
    std::cout << json.dump() << "\n";
    return OkStatus();
  }
  std::cout << "The relay:  weft-relay " << options.out << "/relay.toml\n";
  TellOfJoinFiles(options.out, options.join);
  return OkStatus();
}

}  // namespace

Action SetUpInitRelay(CLI::App& app) {
  auto options = std::make_shared<InitRelayOptions>();
  app.add_option("join-file", options->file,
                 "the file that `weft init` wrote for the relay as a site")
      ->required();
  app.add_option("--sites", options->join.sites, "names of the relay's sites, comma-separated")
      ->delimiter(',')
      ->required();
  app.add_option("--out", options->out, "folder to write")->required();
  app.add_option("--server", options->join.server, "tcp://host:port at which they reach the relay")
      ->required();
  app.add_option("--model", options->join.model,
                 "folder of the base model, where it is not the join file's");
  app.add_option("--rank", options->join.rank, "rank of every site, or auto");
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return InitRelay(*options); };
}

}  // namespace weft::cli
