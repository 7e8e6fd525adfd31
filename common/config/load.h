#pragma once
// Reading settings: defaults, then the TOML file, then WEFT_SECTION_KEY variables, then --set
// section.key=value. An unknown key is an error that names the nearest known one; a wrong type or
// value out of range names key, got, wanted, file:line.

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/config/settings.h"

namespace weft {

struct SettingsSource {
  std::filesystem::path file;          // empty: none
  std::vector<std::string> overrides;  // "section.key=value", as given to --set
  bool environment = true;
};

/// Relative paths in the file are taken from the file's folder.
[[nodiscard]] Result<Settings> LoadSettings(const SettingsSource& source);

/// Sets `path` ("client.rank") from a program's flag, checked as if it stood in a file; client.*
/// goes to `client`. Relative paths are taken from the working folder; errors name the flag.
[[nodiscard]] Status SetFromFlag(Settings& settings, ClientSettings& client,
                                 const std::string& flag, const std::string& path,
                                 const std::string& value);

/// The settings as a TOML file that LoadSettings reads back to an equal value; only what differs
/// from the defaults unless `all`.
[[nodiscard]] std::string ToToml(const Settings& settings, bool all);

/// Settings back from what ToToml printed, as a run's ledger holds it; nothing else is looked at.
/// Errors name `name` and the line.
[[nodiscard]] Result<Settings> SettingsFromToml(std::string_view toml, const std::string& name);

/// docs/configuration.md: every key with type, default and description.
[[nodiscard]] std::string SettingsReference();

}  // namespace weft
