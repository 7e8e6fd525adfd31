#pragma once
// Binding: one setting's key, place in a Settings, description and rule. BindSettings (settings.cc)
// is the table of all of them; the TOML reader, --set, the environment, printing and the reference
// page are loops over it.

#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/limits.h"
#include "common/config/config_value.h"
#include "common/config/settings.h"

namespace weft {

/// adapter.target-modules: a list of names, "all-linear", or a regular expression.
struct TargetsRef {
  std::vector<std::string>* names;
  std::string* regex;
};

/// A text setting that is written as a number or a word (client.rank).
struct NumberOrWordRef {
  std::string* text;
};

using SettingRef =
    std::variant<bool*, int64_t*, uint64_t*, double*, std::string*, std::vector<std::string>*,
                 std::vector<int64_t>*, std::vector<std::pair<std::string, int64_t>>*,
                 std::vector<std::pair<std::string, double>>*,
                 std::vector<std::pair<std::string, std::string>>*, TargetsRef, NumberOrWordRef>;

/// What a value must satisfy; only what applies to its type is looked at. For lists and tables the
/// bounds hold for each element.
struct Rule {
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  bool above_min = false;                    // min itself is excluded
  bool below_max = false;                    // max itself is excluded
  std::vector<std::string_view> words = {};  // non-empty: the only texts allowed
  bool path = false;  // a file or folder; relative ones are taken from the configuration's folder
  bool (*form)(const std::string&) = nullptr;  // of a non-empty text
  std::string_view form_wanted = {};           // says what `form` accepts
};

struct Binding {
  std::string_view section;
  std::string_view key;
  SettingRef ref;
  std::string_view help;
  Rule rule;
};

/// All settings but those of clients; the references point into `settings`.
[[nodiscard]] std::vector<Binding> BindSettings(Settings& settings);
/// The settings of one client; section "client".
[[nodiscard]] std::vector<Binding> BindClient(ClientSettings& client);

/// Checks and stores a value. The Status says "got …, wanted …" and names no place.
[[nodiscard]] Status Assign(const Binding& binding, const ConfigValue& value);
/// The same from text, as --set and the environment give it.
[[nodiscard]] Status AssignText(const Binding& binding, const std::string& text);

/// The present value in TOML.
[[nodiscard]] std::string PrintValue(const Binding& binding);
/// "integer from 1 to 65536", "one of cut, drop" …
[[nodiscard]] std::string DescribeType(const Binding& binding);

}  // namespace weft
