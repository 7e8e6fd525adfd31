// `weft init`: everything a federation needs before its first start: the server's configuration
// with keys and allow-list, the base model's description, and one join file per site.

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

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

struct InitOptions {
  JoinOptions join;
  std::string config;
  std::vector<std::string> overrides;
  std::string out;
  bool json = false;
};

Result<Settings> RunSettingsOf(const InitOptions& options) {
  SettingsSource source;
  source.file = options.config;
  source.overrides = options.overrides;
  source.environment = false;  // what is written down should not depend on this shell
  return LoadSettings(source);
}

Status CheckOptions(const InitOptions& options) {
  WEFT_TRY(CheckJoinOptions(options.join, "init"));
  if (options.out.empty()) return InvalidArgument("[init] --out: got an empty name");
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(options.out) / "run.toml", error)) {
    return AlreadyExists(Str("[init] ", options.out,
                             " holds a federation already; choose another --out, or remove it "
                             "(its keys would be lost)"));
  }
  return OkStatus();
}

/// The server's file names its neighbours relatively, so the folder can be moved as a whole.
Settings ServerFile(const InitOptions& options, const Settings& given) {
  Settings settings = given;
  if (settings.run.dir.empty()) settings.run.dir = "run";
  settings.model.path = Absolute(options.join.model);
  settings.model.base = "base.json";
  settings.evaluate.data = Absolute(given.evaluate.data);
  settings.sim.data = Absolute(given.sim.data);
  settings.server.bind = BindOf(options.join.server);
  settings.server.address = options.join.server;
  settings.server.secret_key = "server.secret";
  settings.server.public_key.clear();
  settings.server.allow_list = "allow.txt";
  settings.clients.clear();
  for (const std::string& site : options.join.sites) {
    ClientSettings client;
    client.name = site;
    client.rank = RankOf(options.join, given, site);
    settings.clients.push_back(std::move(client));
  }
  return settings;
}

Status WriteFederation(const InitOptions& options, const Settings& given) {
  const std::filesystem::path out(options.out);
  // Before anything is written: a folder without run.toml could not be made again over its keys.
  WEFT_TRY_ASSIGN(const BaseDescription base, DescribeBase(options.join.model));
  WEFT_TRY(PrepareOutFolder(out, options.join.model));
  WEFT_TRY(WriteBaseDescription(out / "base.json", base));
  WEFT_TRY_ASSIGN(const KeyPair server, NewKeyPair());
  WEFT_TRY(WriteKeyPair(server, out / "server"));
  WEFT_TRY(WriteJoinFiles(out, options.join, given, server.public_key));
  // Last: a folder with run.toml is complete.
  return WritePrivateFile(out / "run.toml",
                          "# The aggregator's file: weft-aggregator run.toml\n\n" +
                              ToToml(ServerFile(options, given), false));
}

Status Init(const InitOptions& options) {
  WEFT_TRY(CheckOptions(options));
  WEFT_TRY_ASSIGN(const Settings given, RunSettingsOf(options));
  WEFT_TRY(CheckRun(given));
  WEFT_TRY(WriteFederation(options, given));
  if (options.json) {
    nlohmann::ordered_json json = {{"out", options.out}, {"run", options.out + "/run.toml"}};
    for (const std::string& site : options.join.sites) {
      json["sites"][site] = options.out + "/" + site + ".toml";
    }
    std::cout << json.dump() << "\n";
    return OkStatus();
  }
  std::cout << "The aggregator:  weft-aggregator " << options.out << "/run.toml\n";
  TellOfJoinFiles(options.out, options.join);
  return OkStatus();
}

}  // namespace

Action SetUpInit(CLI::App& app) {
  auto options = std::make_shared<InitOptions>();
  app.add_option("--model", options->join.model, "folder of the base model")->required();
  app.add_option("--sites", options->join.sites, "names of the sites, comma-separated")
      ->delimiter(',')
      ->required();
  app.add_option("--out", options->out, "folder to write")->required();
  app.add_option("--server", options->join.server,
                 "tcp://host:port at which sites reach the server")
      ->capture_default_str();
  app.add_option("--config", options->config, "a run's TOML file to start from");
  app.add_option("--set", options->overrides, "section.key=value, over the file")
      ->allow_extra_args(false);
  app.add_option("--rank", options->join.rank, "rank of every site, or auto");
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return Init(*options); };
}

}  // namespace weft::cli
