#pragma once
// Flags of a daemon that stand for one setting each.

#include <optional>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>

#include "common/config/load.h"

namespace weft::cli {

struct SettingFlag {
  const char* flag;
  const char* path;  // "section.key"
  const char* help;
  std::optional<std::string> value = {};  // what was given
};

/// `flags` must stay where they are until the command line is parsed.
inline void AddSettingFlags(CLI::App& app, std::vector<SettingFlag>& flags) {
  for (SettingFlag& setting : flags) app.add_option(setting.flag, setting.value, setting.help);
}

/// Sets what was given; client.* goes to `client`.
[[nodiscard]] inline Status SetGiven(const std::vector<SettingFlag>& flags, Settings& settings,
                                     ClientSettings& client) {
  for (const SettingFlag& setting : flags) {
    if (!setting.value) continue;
    WEFT_TRY(SetFromFlag(settings, client, setting.flag, setting.path, *setting.value));
  }
  return OkStatus();
}

}  // namespace weft::cli
