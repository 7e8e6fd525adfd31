// `weft init`: everything a federation needs before its first start: the server's configuration
// with keys and allow-list, the base model's description, and one join file per site.

#include <algorithm>
#include <array>
#include <filesystem>
#include <iostream>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "cli/check_run.h"
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
  std::string model;
  std::string config;
  std::vector<std::string> overrides;
  std::vector<std::string> sites;
  std::string server = "tcp://127.0.0.1:7711";
  std::string out;
  std::string rank;
  bool json = false;
};

Result<Settings> RunSettingsOf(const InitOptions& options) {
  SettingsSource source;
  source.file = options.config;
  source.overrides = options.overrides;
  source.environment = false;  // what is written down should not depend on this shell
  return LoadSettings(source);
}

/// What is written into another folder must not be relative to this one.
std::string Absolute(const std::string& path) {
  if (path.empty()) return path;
  return std::filesystem::absolute(path).lexically_normal().string();
}

/// Where a server listens that clients reach at this address: the same port on every card, unless
/// it is on this machine.
std::string BindOf(const std::string& address) {
  for (const char* local : {"tcp://127.", "tcp://localhost", "tcp://[::1]"}) {
    if (address.starts_with(local)) return address;
  }
  return "tcp://0.0.0.0" + address.substr(address.rfind(':'));
}

// Names of key files that are the server's own.
constexpr std::array kTakenNames = {"server", "run"};

Status CheckSites(const std::vector<std::string>& sites) {
  std::set<std::string> seen;
  for (const std::string& site : sites) {
    WEFT_TRY(CheckSiteName(site).Within("[init] --sites"));
    if (std::find(kTakenNames.begin(), kTakenNames.end(), site) != kTakenNames.end()) {
      return InvalidArgument(
          Str("[init] --sites: \"", site, "\" would take the server's own file; choose another"));
    }
    if (!seen.insert(site).second) {
      return InvalidArgument(Str("[init] --sites: \"", site, "\" is named twice"));
    }
  }
  return OkStatus();
}

// What goes into files is checked as the programs that read them will check it.
Status CheckSettings(const InitOptions& options) {
  Settings settings;
  ClientSettings client;
  WEFT_TRY(SetFromFlag(settings, client, "--server", "server.address", options.server));
  const bool any_host =
      options.server.starts_with("tcp://*") || options.server.starts_with("tcp://0.0.0.0");
  if (any_host || options.server.ends_with('*') || options.server.ends_with(":0")) {
    return InvalidArgument(Str("[init] --server: got ", options.server,
                               ", wanted the host and port at which sites reach the server"));
  }
  if (options.rank.empty()) return OkStatus();
  return SetFromFlag(settings, client, "--rank", "client.rank", options.rank);
}

Status CheckOptions(const InitOptions& options) {
  WEFT_TRY(CheckSettings(options));
  WEFT_TRY(CheckSites(options.sites));
  if (options.out.empty()) return InvalidArgument("[init] --out: got an empty name");
  std::error_code error;
  if (std::filesystem::exists(std::filesystem::path(options.out) / "run.toml", error)) {
    return AlreadyExists(Str("[init] ", options.out,
                             " holds a federation already; choose another --out, or remove it "
                             "(its keys would be lost)"));
  }
  return OkStatus();
}

std::string RankOf(const InitOptions& options, const Settings& settings, const std::string& site) {
  if (!options.rank.empty()) return options.rank;
  for (const ClientSettings& client : settings.clients) {
    if (client.name == site) return client.rank;
  }
  return "auto";
}

/// The server's file names its neighbours relatively, so the folder can be moved as a whole.
Settings ServerFile(const InitOptions& options, const Settings& given) {
  Settings settings = given;
  if (settings.run.dir.empty()) settings.run.dir = "run";
  settings.model.path = Absolute(options.model);
  settings.model.base = "base.json";
  settings.evaluate.data = Absolute(given.evaluate.data);
  settings.sim.data = Absolute(given.sim.data);
  settings.server.bind = BindOf(options.server);
  settings.server.address = options.server;
  settings.server.secret_key = "server.secret";
  settings.server.public_key.clear();
  settings.server.allow_list = "allow.txt";
  settings.clients.clear();
  for (const std::string& site : options.sites) {
    ClientSettings client;
    client.name = site;
    client.rank = RankOf(options, given, site);
    settings.clients.push_back(std::move(client));
  }
  return settings;
}

/// All that one site needs; the run's own settings reach it with each round.
std::string SiteFile(const InitOptions& options, const Settings& given, const std::string& site,
                     const std::string& server_key) {
  Settings settings;
  settings.run.name = given.run.name;
  settings.model.path = Absolute(options.model);
  settings.model.device = given.model.device;
  settings.model.threads = given.model.threads;
  settings.model.chat_template = given.model.chat_template;
  settings.adapter = given.adapter;
  settings.server.address = options.server;
  settings.server.public_key = server_key;
  ClientSettings client;
  for (const ClientSettings& named : given.clients) {
    if (named.name == site) client = named;
  }
  client.name = site;
  client.data = Absolute(client.data);
  client.valid = Absolute(client.valid);
  client.rank = RankOf(options, given, site);
  client.secret_key = site + ".secret";
  client.dir = "client-" + site;
  settings.clients = {client};
  return Str("# Join file of site ", site, ". It and ", site,
             ".secret go to the site, nothing else does. Fill in model.path and\n"
             "# client.data for that machine, then: weft-client ",
             site, ".toml --check\n\n", ToToml(settings, false));
}

Status WriteFederation(const InitOptions& options, const Settings& given) {
  const std::filesystem::path out(options.out);
  // Before anything is written: a folder without run.toml could not be made again over its keys.
  WEFT_TRY_ASSIGN(const BaseDescription base, DescribeBase(options.model));
  WEFT_TRY(PrepareOutFolder(out, options.model));
  WEFT_TRY(WriteBaseDescription(out / "base.json", base));
  WEFT_TRY_ASSIGN(const KeyPair server, NewKeyPair());
  WEFT_TRY(WriteKeyPair(server, out / "server"));
  for (const std::string& site : options.sites) {
    WEFT_TRY_ASSIGN(const KeyPair pair, NewKeyPair());
    WEFT_TRY(WriteKeyPair(pair, out / site));
    WEFT_TRY(AllowKey(out / "allow.txt", pair.public_key, ClientId{site}));
    WEFT_TRY(WritePrivateFile(out / (site + ".toml"),
                              SiteFile(options, given, site, server.public_key)));
  }
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
    for (const std::string& site : options.sites) {
      json["sites"][site] = options.out + "/" + site + ".toml";
    }
    std::cout << json.dump() << "\n";
    return OkStatus();
  }
  std::cout << "The aggregator:  weft-aggregator " << options.out << "/run.toml\n";
  for (const std::string& site : options.sites) {
    std::cout << "Site " << site << ":  give it " << options.out << "/" << site << ".toml and "
              << site << ".secret, over a channel you trust; there:\n"
              << "    weft-client " << site << ".toml --set client.data=ROWS.jsonl --check\n"
              << "    weft-client " << site << ".toml --set client.data=ROWS.jsonl\n";
  }
  return OkStatus();
}

}  // namespace

Action SetUpInit(CLI::App& app) {
  auto options = std::make_shared<InitOptions>();
  app.add_option("--model", options->model, "folder of the base model")->required();
  app.add_option("--sites", options->sites, "names of the sites, comma-separated")
      ->delimiter(',')
      ->required();
  app.add_option("--out", options->out, "folder to write")->required();
  app.add_option("--server", options->server, "tcp://host:port at which sites reach the server")
      ->capture_default_str();
  app.add_option("--config", options->config, "a run's TOML file to start from");
  app.add_option("--set", options->overrides, "section.key=value, over the file")
      ->allow_extra_args(false);
  app.add_option("--rank", options->rank, "rank of every site, or auto");
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return Init(*options); };
}

}  // namespace weft::cli
