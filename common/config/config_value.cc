// The one door through which the TOML library is met; built so that it throws nothing.
#include "common/config/config_value.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

// What is wrong in a file must be an error: the library asserts what it checks again, with words,
// a few lines on.
#define TOML_ASSERT(expr) static_cast<void>(0)
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include "common/base/str.h"

namespace weft {
namespace {

bool Before(const toml::source_region& a, const toml::source_region& b) {
  return std::pair(a.begin.line, a.begin.column) < std::pair(b.begin.line, b.begin.column);
}

Result<ConfigValue> Convert(const toml::node& node, const std::string& name);

Result<ConfigValue::Table> ConvertTable(const toml::table& table, const std::string& name) {
  // The library sorts keys; what was written first must come first.
  std::vector<std::pair<toml::key, const toml::node*>> entries;
  for (const auto& [key, node] : table) entries.emplace_back(key, &node);
  std::stable_sort(entries.begin(), entries.end(), [](const auto& a, const auto& b) {
    return Before(a.first.source(), b.first.source());
  });
  ConfigValue::Table result;
  for (const auto& [key, node] : entries) {
    WEFT_TRY_ASSIGN(ConfigValue value, Convert(*node, name));
    // A table may be spread over the file; its key's line is the one to show.
    value.line = static_cast<int64_t>(key.source().begin.line);
    result.emplace_back(std::string(key.str()), std::move(value));
  }
  return result;
}

Result<ConfigValue> Convert(const toml::node& node, const std::string& name) {
  ConfigValue value;
  value.line = static_cast<int64_t>(node.source().begin.line);
  if (const auto* flag = node.as_boolean()) {
    value.data = flag->get();
  } else if (const auto* integer = node.as_integer()) {
    value.data = integer->get();
  } else if (const auto* number = node.as_floating_point()) {
    value.data = number->get();
  } else if (const auto* text = node.as_string()) {
    value.data = text->get();
  } else if (const auto* list = node.as_array()) {
    ConfigValue::List items;
    for (const toml::node& item : *list) {
      WEFT_TRY_ASSIGN(ConfigValue converted, Convert(item, name));
      items.push_back(std::move(converted));
    }
    value.data = std::move(items);
  } else if (const auto* table = node.as_table()) {
    WEFT_TRY_ASSIGN(ConfigValue::Table converted, ConvertTable(*table, name));
    value.data = std::move(converted);
  } else {
    return InvalidArgument(
        Str(name, ":", value.line, ": a date or time; no setting is one, put it in quotes"));
  }
  return value;
}

// Behind the string that opens at `at`: TOML's four kinds, of which those in triple quotes go over
// lines and may have two more quotes before their end.
size_t EndOfString(std::string_view text, size_t at) {
  const char kind = text[at];
  const bool triple = text.substr(at, 3) == std::string(3, kind);
  const std::string close(triple ? 3 : 1, kind);
  for (at += close.size(); at < text.size(); ++at) {
    if (text.substr(at, close.size()) == close) {
      at += close.size();
      const size_t last = std::min(text.size(), at + (triple ? 2 : 0));
      while (at < last && text[at] == kind) ++at;
      return at;
    }
    if (text[at] == '\n' && !triple) return at;
    if (text[at] == '\\' && kind == '"') ++at;
  }
  return text.size();
}

constexpr size_t kKeyPartsMax = 64;

// What the library must not see: it recurses once for each part of a dotted key, without a bound of
// its own, and where a blank may stand, its behaviour is undefined for some characters beyond ASCII
// (no TOML has one there).
Status CheckForLibrary(std::string_view text, const std::string& name) {
  constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF", kBetweenKeys = "\n=,{}[]";
  const auto error = [&](size_t at, const std::string& what) {
    const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n');
    return InvalidArgument(Str(name, ":", line, ": ", what));
  };
  size_t dots = 0;
  for (size_t i = text.starts_with(kByteOrderMark) ? kByteOrderMark.size() : 0; i < text.size();) {
    const char c = text[i];
    if (c == '"' || c == '\'') {
      i = EndOfString(text, i);
      continue;
    }
    if (c == '#') {
      i = std::min(text.find('\n', i), text.size());
      continue;
    }
    if (static_cast<unsigned char>(c) >= 0x80) {
      return error(i, "a character that is not ASCII (as typographic quotes are) outside of texts");
    }
    if (kBetweenKeys.find(c) != std::string_view::npos) dots = 0;
    if (c == '.' && ++dots >= kKeyPartsMax) {
      return error(i, Str("a key of more than ", kKeyPartsMax, " dotted parts"));
    }
    ++i;
  }
  return OkStatus();
}

}  // namespace

std::string ConfigValue::Describe() const {
  if (const bool* flag = As<bool>()) return *flag ? "true" : "false";
  if (const int64_t* integer = As<int64_t>()) return Str(*integer);
  if (const double* number = As<double>()) return NumberToml(*number);
  if (const std::string* text = As<std::string>()) return QuoteToml(*text);
  // Short ones whole, for which of their values is wrong is seen best among the others.
  constexpr size_t kShownMax = 80;
  std::string text;
  if (const List* list = As<List>()) {
    for (const ConfigValue& item : *list) {
      text += (text.empty() ? "" : ", ") + item.Describe();
      if (text.size() > kShownMax) return Str("a list of ", list->size());
    }
    return "[" + text + "]";
  }
  for (const auto& [key, value] : *As<Table>()) {
    text += (text.empty() ? "" : ", ") + KeyToml(key) + " = " + value.Describe();
    if (text.size() > kShownMax) return Str("a table of ", As<Table>()->size());
  }
  return "{" + text + "}";
}

Result<ConfigValue> ParseToml(std::string_view text, const std::string& name) {
  WEFT_TRY(CheckForLibrary(text, name));
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    const toml::source_position at = parsed.error().source().begin;
    return InvalidArgument(
        Str(name, ":", at.line, ":", at.column, ": ", parsed.error().description()));
  }
  return Convert(parsed.table(), name);
}

std::string QuoteToml(std::string_view text) {
  std::string quoted = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (c == '\t') {
      quoted += "\\t";
    } else if (byte < 0x20 || byte == 0x7F) {
      constexpr std::string_view kDigits = "0123456789ABCDEF";
      quoted += "\\u00";
      quoted += kDigits[byte >> 4];
      quoted += kDigits[byte & 0xF];
    } else {
      quoted += c;
    }
  }
  return quoted + '"';
}

std::string NumberToml(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  std::array<char, 32> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  std::string text(digits.data(), end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string KeyToml(std::string_view text) {
  const bool bare = !text.empty() && text.find_first_not_of(
                                         "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                         "0123456789_-") == std::string_view::npos;
  return bare ? std::string(text) : QuoteToml(text);
}

}  // namespace weft
