#include "cli/join_files.h"

#include <algorithm>
#include <array>
#include <iostream>
#include <set>

#include "cli/private_file.h"
#include "common/base/str.h"
#include "common/config/load.h"
#include "common/net/keys.h"

namespace weft::cli {
namespace {

// Names of key files that are the server's own.
constexpr std::array kTakenNames = {"server", "run", "relay"};

Status CheckSites(const std::vector<std::string>& sites, const std::string& command) {
  std::set<std::string> seen;
  for (const std::string& site : sites) {
    WEFT_TRY(CheckSiteName(site).Within(Str("[", command, "] --sites")));
    if (std::find(kTakenNames.begin(), kTakenNames.end(), site) != kTakenNames.end()) {
      return InvalidArgument(Str("[", command, "] --sites: \"", site,
                                 "\" would take the server's own file; choose another"));
    }
    if (!seen.insert(site).second) {
      return InvalidArgument(Str("[", command, "] --sites: \"", site, "\" is named twice"));
    }
  }
  return OkStatus();
}

/// All that one site needs; the run's own settings reach it with each round.
std::string SiteFile(const JoinOptions& options, const Settings& given, const std::string& site,
                     const std::string& server_key) {
  Settings settings;
  settings.run.name = given.run.name;
  settings.model.path = Absolute(options.model);
  settings.model.device = given.model.device;
  settings.model.threads = given.model.threads;
  settings.model.chat_template = given.model.chat_template;
  settings.adapter = given.adapter;
  settings.strategy = given.strategy;  // for a site that is a relay
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

}  // namespace

std::string Absolute(const std::string& path) {
  if (path.empty()) return path;
  return std::filesystem::absolute(path).lexically_normal().string();
}

std::string BindOf(const std::string& address) {
  for (const char* local : {"tcp://127.", "tcp://localhost", "tcp://[::1]"}) {
    if (address.starts_with(local)) return address;
  }
  return "tcp://0.0.0.0" + address.substr(address.rfind(':'));
}

Status CheckJoinOptions(const JoinOptions& options, const std::string& command) {
  WEFT_TRY(CheckSites(options.sites, command));
  Settings settings;
  ClientSettings client;
  WEFT_TRY(SetFromFlag(settings, client, "--server", "server.address", options.server));
  const bool any_host =
      options.server.starts_with("tcp://*") || options.server.starts_with("tcp://0.0.0.0");
  if (any_host || options.server.ends_with('*') || options.server.ends_with(":0")) {
    return InvalidArgument(Str("[", command, "] --server: got ", options.server,
                               ", wanted the host and port at which sites reach the server"));
  }
  if (options.rank.empty()) return OkStatus();
  return SetFromFlag(settings, client, "--rank", "client.rank", options.rank);
}

std::string RankOf(const JoinOptions& options, const Settings& settings, const std::string& site) {
  if (!options.rank.empty()) return options.rank;
  for (const ClientSettings& client : settings.clients) {
    if (client.name == site) return client.rank;
  }
  return "auto";
}

Status WriteJoinFiles(const std::filesystem::path& out, const JoinOptions& options,
                      const Settings& given, const std::string& server_key) {
  for (const std::string& site : options.sites) {
    WEFT_TRY_ASSIGN(const KeyPair pair, NewKeyPair());
    WEFT_TRY(WriteKeyPair(pair, out / site));
    WEFT_TRY(AllowKey(out / "allow.txt", pair.public_key, ClientId{site}));
    WEFT_TRY(WritePrivateFile(out / (site + ".toml"), SiteFile(options, given, site, server_key)));
  }
  return OkStatus();
}

void TellOfJoinFiles(const std::filesystem::path& out, const JoinOptions& options) {
  for (const std::string& site : options.sites) {
    std::cout << "Site " << site << ":  give it " << out.string() << "/" << site << ".toml and "
              << site << ".secret, over a channel you trust; there:\n"
              << "    weft-client " << site << ".toml --set client.data=ROWS.jsonl --check\n"
              << "    weft-client " << site << ".toml --set client.data=ROWS.jsonl\n";
  }
}

}  // namespace weft::cli
