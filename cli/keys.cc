// `weft keys new|show|allow|revoke|list`: CURVE key pairs, and the allow-list of who may join.

#include "common/net/keys.h"

#include <filesystem>
#include <iostream>
#include <memory>
#include <string>

#include <nlohmann/json.hpp>

#include "cli/set_up.h"
#include "common/base/str.h"

namespace weft::cli {
namespace {

struct KeyOptions {
  std::string out;         // path without suffix
  std::string key;         // public key as text, or a key file
  std::string name;        // site
  std::string allow_list;  // file
  bool json = false;
};

void AddAllowList(CLI::App& app, KeyOptions& options) {
  app.add_option("--allow-list,-f", options.allow_list, "file of \"public-key name\" lines")
      ->default_str("allow.txt")
      ->default_val("allow.txt");
  app.add_flag("--json", options.json, "one JSON object on stdout");
}

void Print(const nlohmann::ordered_json& json) { std::cout << json.dump() << "\n"; }

// The public key of a .secret file, of a .public file, or given as text.
Result<std::string> PublicKeyOf(const std::string& key) {
  if (!key.ends_with(".secret")) return LoadPublicKey(key);
  WEFT_TRY_ASSIGN(const KeyPair pair, LoadSecretKey(key));
  return pair.public_key;
}

Status New(const KeyOptions& options) {
  if (std::filesystem::path(options.out).filename().empty()) {
    return InvalidArgument(Str("[keys] --out: got \"", options.out, "\", wanted DIR/NAME"));
  }
  WEFT_TRY_ASSIGN(const KeyPair pair, NewKeyPair());
  WEFT_TRY(WriteKeyPair(pair, options.out));
  const std::string secret = options.out + ".secret";
  const std::string open_part = options.out + ".public";
  if (options.json) {
    Print({{"public_key", pair.public_key}, {"secret_file", secret}, {"public_file", open_part}});
  } else {
    std::cout << "secret key: " << secret << " (keep it on this machine, mode 0600)\n"
              << "public key: " << open_part << "\n"
              << pair.public_key << "\n";
  }
  return OkStatus();
}

Status Show(const KeyOptions& options) {
  WEFT_TRY_ASSIGN(const std::string key, PublicKeyOf(options.key));
  if (options.json) {
    Print({{"public_key", key}});
  } else {
    std::cout << key << "\n";
  }
  return OkStatus();
}

Status Allow(const KeyOptions& options) {
  WEFT_TRY_ASSIGN(const std::string key, PublicKeyOf(options.key));
  WEFT_TRY(AllowKey(options.allow_list, key, ClientId{options.name}));
  if (options.json) {
    Print({{"allow_list", options.allow_list}, {"name", options.name}, {"public_key", key}});
  } else {
    std::cout << options.name << " may join; a running aggregator knows within 5 seconds\n";
  }
  return OkStatus();
}

Status Revoke(const KeyOptions& options) {
  WEFT_TRY(RevokeKey(options.allow_list, options.name));
  if (options.json) {
    Print({{"allow_list", options.allow_list}, {"revoked", options.name}});
  } else {
    std::cout << options.name
              << " may no longer join; a running aggregator cuts it within 5 seconds\n";
  }
  return OkStatus();
}

Status List(const KeyOptions& options) {
  WEFT_TRY_ASSIGN(const AllowList list, AllowList::Load(options.allow_list));
  if (options.json) {
    nlohmann::ordered_json entries = nlohmann::ordered_json::array();
    for (const auto& [name, key] : list.entries()) {
      entries.push_back({{"name", name.name}, {"public_key", key}});
    }
    Print({{"allow_list", options.allow_list}, {"sites", entries}});
    return OkStatus();
  }
  for (const auto& [name, key] : list.entries()) std::cout << key << "  " << name << "\n";
  return OkStatus();
}

}  // namespace

Action SetUpKeysAllow(CLI::App& app) {
  auto options = std::make_shared<KeyOptions>();
  app.add_option("KEY", options->key, "public key, or a .public or .secret file")->required();
  app.add_option("NAME", options->name, "the site's name")->required();
  AddAllowList(app, *options);
  return [options] { return Allow(*options); };
}

Action SetUpKeysList(CLI::App& app) {
  auto options = std::make_shared<KeyOptions>();
  AddAllowList(app, *options);
  return [options] { return List(*options); };
}

Action SetUpKeysNew(CLI::App& app) {
  auto options = std::make_shared<KeyOptions>();
  app.add_option("--out,-o", options->out, "DIR/NAME: writes NAME.secret and NAME.public")
      ->required();
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return New(*options); };
}

Action SetUpKeysRevoke(CLI::App& app) {
  auto options = std::make_shared<KeyOptions>();
  app.add_option("NAME", options->name, "the site's name, or its public key")->required();
  AddAllowList(app, *options);
  return [options] { return Revoke(*options); };
}

Action SetUpKeysShow(CLI::App& app) {
  auto options = std::make_shared<KeyOptions>();
  app.add_option("FILE", options->key, "a .secret or .public file")->required();
  app.add_flag("--json", options->json, "one JSON object on stdout");
  return [options] { return Show(*options); };
}

}  // namespace weft::cli
