#include "common/config/load.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <set>
#include <sstream>
#include <string_view>

#include <unistd.h>

#include "common/base/str.h"
#include "common/config/binding.h"
#include "common/config/nearest.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

// A setting that came from outside, and where it stood there.
struct Given {
  std::string section;
  std::string key;
  std::string where;  // "run.toml:12: ", "--set ", "environment "
};

const Binding* FindKey(const std::vector<Binding>& table, std::string_view section,
                       std::string_view key) {
  const auto it = std::find_if(table.begin(), table.end(), [&](const Binding& binding) {
    return binding.section == section && binding.key == key;
  });
  return it == table.end() ? nullptr : &*it;
}

// Every section and key there is, clients' too.
std::vector<std::pair<std::string, std::string>> AllKeys() {
  Settings settings;
  ClientSettings client;
  std::vector<std::pair<std::string, std::string>> keys;
  for (const auto& table : {BindSettings(settings), BindClient(client)}) {
    for (const Binding& binding : table) keys.emplace_back(binding.section, binding.key);
  }
  return keys;
}

Status UnknownSection(const Given& given) {
  std::vector<std::string> sections;
  for (const auto& [section, key] : AllKeys()) sections.push_back(section);
  return InvalidArgument(Str(given.where, "[", given.section, "]: no such section; did you mean [",
                             Nearest(given.section, sections), "]?"));
}

Status UnknownKey(const Given& given) {
  std::vector<std::string> here;
  for (const auto& [section, key] : AllKeys()) {
    if (section != given.section && key == given.key) {
      return InvalidArgument(Str(given.where, given.section, ".", given.key,
                                 ": no such setting; did you mean ", section, ".", key, "?"));
    }
    if (section == given.section) here.push_back(key);
  }
  if (here.empty()) return UnknownSection(given);
  return InvalidArgument(Str(given.where, given.section, ".", given.key,
                             ": no such setting; did you mean ", given.section, ".",
                             Nearest(given.key, here), "?"));
}

// A public key may be given as text: 40 characters of Z85 (ZeroMQ RFC 32).
bool IsKeyText(const std::string& text) {
  constexpr std::string_view kZ85 =
      "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#";
  return text.size() == 40 && text.find_first_not_of(kZ85) == std::string::npos;
}

// Settings hold absolute paths, so that they mean the same wherever they are printed and read.
void ResolvePath(const Binding& binding, const fs::path& folder) {
  std::string* const* text = std::get_if<std::string*>(&binding.ref);
  if (!binding.rule.path || text == nullptr || (*text)->empty()) return;
  if (binding.key == "public-key" && IsKeyText(**text)) return;
  **text = (folder / **text).lexically_normal().string();
}

Status AssignGiven(const std::vector<Binding>& table, const Given& given, const ConfigValue& value,
                   const fs::path& folder) {
  const Binding* binding = FindKey(table, given.section, given.key);
  if (binding == nullptr) return UnknownKey(given);
  WEFT_TRY(Assign(*binding, value).Within(Str(given.where, given.section, ".", given.key)));
  ResolvePath(*binding, folder);
  return OkStatus();
}

// ---- the file ----

struct FileContext {
  std::string name;
  fs::path folder;
  [[nodiscard]] std::string At(const ConfigValue& value) const {
    return Str(name, ":", value.line, ": ");
  }
};

Status ReadSection(const std::vector<Binding>& bindings, const std::string& section,
                   const ConfigValue& value, const FileContext& file) {
  const auto* table = value.As<ConfigValue::Table>();
  if (table == nullptr) {
    const bool is_section = std::any_of(bindings.begin(), bindings.end(),
                                        [&](const Binding& b) { return b.section == section; });
    if (is_section) {
      return InvalidArgument(Str(file.At(value), section, ": got ", value.Describe(),
                                 ", wanted a section [", section, "]"));
    }
    return InvalidArgument(Str(file.At(value), section, ": a setting outside of a section"));
  }
  if (table->empty()) {
    const bool known = std::any_of(bindings.begin(), bindings.end(),
                                   [&](const Binding& b) { return b.section == section; });
    if (!known) return UnknownSection({section, "", file.At(value)});
  }
  for (const auto& [key, item] : *table) {
    WEFT_TRY(AssignGiven(bindings, {section, key, file.At(item)}, item, file.folder));
  }
  return OkStatus();
}

Status ReadClients(Settings& settings, const ConfigValue& value, const FileContext& file) {
  ConfigValue::List one;
  const auto* list = value.As<ConfigValue::List>();
  if (list == nullptr) {
    one.push_back(value);
    list = &one;
  }
  for (const ConfigValue& item : *list) {
    ClientSettings client;
    WEFT_TRY(ReadSection(BindClient(client), "client", item, file));
    settings.clients.push_back(std::move(client));
  }
  return OkStatus();
}

Status ReadText(Settings& settings, std::string_view text, const FileContext& file) {
  WEFT_TRY_ASSIGN(const ConfigValue root, ParseToml(text, file.name));
  const std::vector<Binding> bindings = BindSettings(settings);
  for (const auto& [section, value] : *root.As<ConfigValue::Table>()) {
    if (section == "client") {
      WEFT_TRY(ReadClients(settings, value, file));
    } else {
      WEFT_TRY(ReadSection(bindings, section, value, file));
    }
  }
  return OkStatus();
}

Status ReadFile(Settings& settings, const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::error_code error;
  if (!in || fs::is_directory(path, error)) {
    return NotFound(Str("[config] ", path.string(), ": cannot be read; name a TOML file"));
  }
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (text.size() > limits::kJsonlLineBytesMax) {
    return ResourceExhausted(Str("[config] ", path.string(), ": ", text.size(), " bytes, at most ",
                                 limits::kJsonlLineBytesMax, " are read"));
  }
  return ReadText(settings, text, {path.string(), fs::absolute(path, error).parent_path()});
}

// ---- the environment and --set ----

Status AssignGivenText(const std::vector<Binding>& table, const Given& given,
                       const std::string& text) {
  const Binding* binding = FindKey(table, given.section, given.key);
  if (binding == nullptr) return UnknownKey(given);
  WEFT_TRY(AssignText(*binding, text).Within(Str(given.where, given.section, ".", given.key)));
  std::error_code error;
  ResolvePath(*binding, fs::current_path(error));
  return OkStatus();
}

// The client that "client.key" means: the only one, or a first one made for it.
Result<ClientSettings*> TheClient(Settings& settings, const Given& given) {
  if (settings.clients.size() > 1) {
    return InvalidArgument(Str(given.where, "client.", given.key, ": there are ",
                               settings.clients.size(), " clients; say which: client.NAME.",
                               given.key));
  }
  if (settings.clients.empty()) settings.clients.emplace_back();
  return &settings.clients.front();
}

Result<ClientSettings*> ClientNamed(Settings& settings, const std::string& name,
                                    const Given& given) {
  std::vector<std::string> names;
  for (ClientSettings& client : settings.clients) {
    if (client.name == name) return &client;
    names.push_back(client.name);
  }
  return NotFound(Str(given.where, "client.", name, ": no such client",
                      names.empty() ? "" : "; did you mean " + Nearest(name, names) + "?"));
}

// WEFT_ADAPTER_TARGET_MODULES is adapter.target-modules. Other variables that start with WEFT_
// and name no section belong to others.
Status ReadEnvironment(Settings& settings) {
  std::set<std::string> sections;
  for (const auto& [section, key] : AllKeys()) sections.insert(section);
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    constexpr std::string_view kPrefix = "WEFT_";
    const size_t equals = text.find('=');
    if (text.substr(0, kPrefix.size()) != kPrefix || equals == std::string_view::npos) continue;
    std::string name(text.substr(kPrefix.size(), equals - kPrefix.size()));
    std::transform(name.begin(), name.end(), name.begin(), [](char c) {
      return c == '_' ? '-' : c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    const size_t dash = name.find('-');
    const std::string section = name.substr(0, dash);
    if (dash == std::string::npos || sections.count(section) == 0) continue;
    const Given given{section, name.substr(dash + 1),
                      Str("environment ", text.substr(0, equals), ": ")};
    const std::string value(text.substr(equals + 1));
    if (section == "client") {
      WEFT_TRY_ASSIGN(ClientSettings * client, TheClient(settings, given));
      WEFT_TRY(AssignGivenText(BindClient(*client), given, value));
    } else {
      WEFT_TRY(AssignGivenText(BindSettings(settings), given, value));
    }
  }
  return OkStatus();
}

Status ReadOverride(Settings& settings, const std::string& text) {
  const std::string where = Str("--set ", text, ": ");
  const size_t equals = text.find('=');
  const std::string path = text.substr(0, equals);
  const size_t first = path.find('.');
  if (equals == std::string::npos || first == std::string::npos || first == 0 ||
      first + 1 == path.size()) {
    return InvalidArgument(where + "wanted section.key=value");
  }
  const std::string section = path.substr(0, first);
  const std::string value = text.substr(equals + 1);
  if (section != "client") {
    return AssignGivenText(BindSettings(settings), {section, path.substr(first + 1), where}, value);
  }
  // Names may hold dots, keys never do.
  const size_t last = path.rfind('.');
  const Given given{section, path.substr(last + 1), where};
  WEFT_TRY_ASSIGN(ClientSettings * client,
                  last == first
                      ? TheClient(settings, given)
                      : ClientNamed(settings, path.substr(first + 1, last - first - 1), given));
  return AssignGivenText(BindClient(*client), given, value);
}

// ---- what no single key can say ----

Status CheckTogether(const Settings& settings) {
  std::set<std::string> names;
  for (size_t i = 0; i < settings.clients.size(); ++i) {
    const std::string& name = settings.clients[i].name;
    if (name.empty() && settings.clients.size() > 1) {
      return InvalidArgument(Str("[config] client number ", i + 1, " has no name"));
    }
    if (!names.insert(name).second) {
      return InvalidArgument(Str("[config] two clients are named ", name));
    }
  }
  if (settings.run.name.empty()) {
    return InvalidArgument("[config] run.name: got none, wanted a name for the run's folder");
  }
  if (settings.server.gone_after_s <= settings.server.heartbeat_s) {
    return InvalidArgument(Str("[config] server.gone-after-s: got ", settings.server.gone_after_s,
                               ", wanted more than server.heartbeat-s, ",
                               settings.server.heartbeat_s));
  }
  const SimSettings& sim = settings.sim;
  if ((sim.partition == "field" && sim.field.empty()) && sim.clients > 0) {
    return InvalidArgument("[config] sim.partition = \"field\" needs sim.field");
  }
  return OkStatus();
}

}  // namespace

Status SetFromFlag(Settings& settings, ClientSettings& client, const std::string& flag,
                   const std::string& path, const std::string& value) {
  const size_t dot = path.find('.');
  const Given given{path.substr(0, dot), path.substr(dot + 1), Str(flag, " ", value, ": ")};
  std::vector<Binding> table = BindClient(client);
  if (given.section != "client") table = BindSettings(settings);
  return AssignGivenText(table, given, value);
}

Result<Settings> SettingsFromToml(std::string_view toml, const std::string& name) {
  Settings settings;
  WEFT_TRY(ReadText(settings, toml, {name, fs::path()}));
  return settings;
}

Result<Settings> LoadSettings(const SettingsSource& source) {
  Settings settings;
  if (!source.file.empty()) WEFT_TRY(ReadFile(settings, source.file));
  if (source.environment) WEFT_TRY(ReadEnvironment(settings));
  for (const std::string& text : source.overrides) WEFT_TRY(ReadOverride(settings, text));
  WEFT_TRY(CheckTogether(settings));
  return settings;
}

}  // namespace weft
