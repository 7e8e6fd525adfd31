#pragma once
// ConfigValue: a value of a TOML file or of a --set, with its line, in the order written. The rest
// of the configuration knows no TOML library.

#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "common/base/result.h"

namespace weft {

struct ConfigValue {
  using List = std::vector<ConfigValue>;
  using Table = std::vector<std::pair<std::string, ConfigValue>>;

  std::variant<bool, int64_t, double, std::string, List, Table> data = false;
  int64_t line = 0;  // 0: not from a file

  template <typename T>
  [[nodiscard]] const T* As() const {
    return std::get_if<T>(&data);
  }
  /// `"abc" (a string)`, for messages.
  [[nodiscard]] std::string Describe() const;
};

/// Parses TOML text. Errors: "NAME:LINE:COLUMN: what".
[[nodiscard]] Result<ConfigValue> ParseToml(std::string_view text, const std::string& name);

/// Text as a TOML basic string, quotes included.
[[nodiscard]] std::string QuoteToml(std::string_view text);

/// The shortest text that reads back to the same double, always with a point or an exponent.
[[nodiscard]] std::string NumberToml(double value);

/// `text` as a TOML key: bare where TOML allows it, quoted otherwise.
[[nodiscard]] std::string KeyToml(std::string_view text);

}  // namespace weft
