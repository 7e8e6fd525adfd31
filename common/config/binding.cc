#include "common/config/binding.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "common/base/str.h"

namespace weft {
namespace {

Status Wanted(const Binding& binding, const std::string& got) {
  return InvalidArgument(Str("got ", got, ", wanted ", DescribeType(binding)));
}

bool InRange(const Rule& rule, double value) {
  if (std::isnan(value)) return false;
  const bool above = rule.above_min ? value > rule.min : value >= rule.min;
  const bool below = rule.below_max ? value < rule.max : value <= rule.max;
  return above && below && std::isfinite(value);
}

bool TextFits(const Rule& rule, const std::string& text) {
  if (!rule.words.empty() &&
      std::find(rule.words.begin(), rule.words.end(), text) == rule.words.end()) {
    return false;
  }
  if (text.size() > limits::kTextBytesMax) return false;
  return text.empty() || rule.form == nullptr || rule.form(text);
}

bool ReadNumber(const Rule& rule, const ConfigValue& value, double& out) {
  if (const int64_t* integer = value.As<int64_t>()) {
    out = static_cast<double>(*integer);
  } else if (const double* number = value.As<double>()) {
    out = *number;
  } else {
    return false;
  }
  return InRange(rule, out);
}

bool ReadInteger(const Rule& rule, const ConfigValue& value, int64_t& out) {
  const int64_t* integer = value.As<int64_t>();
  if (integer == nullptr || !InRange(rule, static_cast<double>(*integer))) return false;
  out = *integer;
  return true;
}

// TOML's integers end at 2⁶³−1; larger ones are written as text.
bool ReadUnsigned(const Rule& rule, const ConfigValue& value, uint64_t& out) {
  uint64_t read = 0;
  if (const int64_t* integer = value.As<int64_t>()) {
    if (*integer < 0) return false;
    read = static_cast<uint64_t>(*integer);
  } else if (const std::string* text = value.As<std::string>()) {
    const char* end = text->data() + text->size();
    const auto [stop, error] = std::from_chars(text->data(), end, read);
    if (error != std::errc() || stop != end) return false;
  } else {
    return false;
  }
  if (!InRange(rule, static_cast<double>(read))) return false;
  out = read;
  return true;
}

bool ReadText(const Rule& rule, const ConfigValue& value, std::string& out) {
  const std::string* text = value.As<std::string>();
  if (text == nullptr || !TextFits(rule, *text)) return false;
  out = *text;
  return true;
}

// Options of a method may be written as numbers or flags; they are kept as text.
bool ReadOption(const Rule&, const ConfigValue& value, std::string& out) {
  if (value.As<ConfigValue::List>() != nullptr || value.As<ConfigValue::Table>() != nullptr) {
    return false;
  }
  const std::string* text = value.As<std::string>();
  out = text != nullptr ? *text : value.Describe();
  return true;
}

template <typename T, typename Read>
bool ReadList(const Rule& rule, const ConfigValue& value, std::vector<T>& out, Read read) {
  const auto* list = value.As<ConfigValue::List>();
  if (list == nullptr) return false;
  std::vector<T> items(list->size());
  for (size_t i = 0; i < items.size(); ++i) {
    if (!read(rule, (*list)[i], items[i])) return false;
  }
  out = std::move(items);
  return true;
}

// A table in the table adds its name and a dot: `nola.k = 64`, as TOML reads dotted keys.
template <typename T, typename Read>
bool AppendPairs(const Rule& rule, const ConfigValue::Table& table, const std::string& prefix,
                 std::vector<std::pair<std::string, T>>& out, Read read) {
  for (const auto& [name, item] : table) {
    if (const auto* inner = item.template As<ConfigValue::Table>();
        inner != nullptr && prefix.empty()) {
      if (!AppendPairs(rule, *inner, name + ".", out, read)) return false;
      continue;
    }
    T element{};
    if (!read(rule, item, element)) return false;
    out.emplace_back(prefix + name, std::move(element));
  }
  return true;
}

template <typename T, typename Read>
bool ReadPairs(const Rule& rule, const ConfigValue& value,
               std::vector<std::pair<std::string, T>>& out, Read read) {
  const auto* table = value.As<ConfigValue::Table>();
  if (table == nullptr) return false;
  std::vector<std::pair<std::string, T>> pairs;
  if (!AppendPairs(rule, *table, "", pairs, read)) return false;
  out = std::move(pairs);
  return true;
}

constexpr std::string_view kNameCharacters =
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_";

bool IsPlainName(const std::string& text) {
  return !text.empty() && text.find_first_not_of(kNameCharacters) == std::string::npos;
}

// A string is PEFT's regular expression over whole paths, but for the word "all-linear" and for a
// plain name, which no whole path is.
bool ReadTargets(const ConfigValue& value, TargetsRef out) {
  if (const std::string* text = value.As<std::string>()) {
    const bool name = *text == "all-linear" || IsPlainName(*text);
    *out.names = name ? std::vector<std::string>{*text} : std::vector<std::string>{};
    *out.regex = name ? "" : *text;
    return !text->empty();
  }
  if (!ReadList(Rule{}, value, *out.names, ReadText)) return false;
  out.regex->clear();
  return true;
}

bool ReadNumberOrWord(const Rule& rule, const ConfigValue& value, std::string& out) {
  int64_t number = 0;
  if (ReadInteger(rule, value, number)) {
    out = Str(number);
    return true;
  }
  const std::string* text = value.As<std::string>();
  if (text == nullptr) return false;
  if (std::find(rule.words.begin(), rule.words.end(), *text) != rule.words.end()) {
    out = *text;
    return true;
  }
  const char* end = text->data() + text->size();
  const auto [stop, error] = std::from_chars(text->data(), end, number);
  if (error != std::errc() || stop != end || !InRange(rule, static_cast<double>(number))) {
    return false;
  }
  out = Str(number);
  return true;
}

struct Reader {
  const Rule& rule;
  const ConfigValue& value;

  bool operator()(bool* out) const {
    const bool* flag = value.As<bool>();
    if (flag != nullptr) *out = *flag;
    return flag != nullptr;
  }
  bool operator()(int64_t* out) const { return ReadInteger(rule, value, *out); }
  bool operator()(uint64_t* out) const { return ReadUnsigned(rule, value, *out); }
  bool operator()(double* out) const { return ReadNumber(rule, value, *out); }
  bool operator()(std::string* out) const { return ReadText(rule, value, *out); }
  bool operator()(std::vector<std::string>* out) const {
    return ReadList(rule, value, *out, ReadText);
  }
  bool operator()(std::vector<int64_t>* out) const {
    return ReadList(rule, value, *out, ReadInteger);
  }
  bool operator()(std::vector<std::pair<std::string, int64_t>>* out) const {
    return ReadPairs(rule, value, *out, ReadInteger);
  }
  bool operator()(std::vector<std::pair<std::string, double>>* out) const {
    return ReadPairs(rule, value, *out, ReadNumber);
  }
  bool operator()(std::vector<std::pair<std::string, std::string>>* out) const {
    return ReadPairs(rule, value, *out, ReadOption);
  }
  bool operator()(TargetsRef out) const { return ReadTargets(value, out); }
  bool operator()(NumberOrWordRef out) const { return ReadNumberOrWord(rule, value, *out.text); }
};

template <typename T>
constexpr bool kIsText = std::is_same_v<T, std::string*> || std::is_same_v<T, NumberOrWordRef>;
template <typename T>
constexpr bool kIsList = std::is_same_v<T, std::vector<std::string>*> ||
                         std::is_same_v<T, std::vector<int64_t>*> || std::is_same_v<T, TargetsRef>;

// "a,b" as --set gives lists, as a TOML list; false where it is no plain comma list.
bool SplitNames(const std::string& text, std::string& toml, bool quote) {
  if (text.find_first_not_of(std::string(kNameCharacters) + ".-,") != std::string::npos) {
    return false;
  }
  toml = "[";
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string item = text.substr(begin, end - begin);
    toml += (quote ? QuoteToml(item) : item) + ",";
    begin = end + 1;
  }
  toml += "]";
  return true;
}

ConfigValue TextValue(const std::string& text) {
  ConfigValue value;
  value.data = text;
  return value;
}

}  // namespace

Status Assign(const Binding& binding, const ConfigValue& value) {
  if (std::visit(Reader{binding.rule, value}, binding.ref)) return OkStatus();
  return Wanted(binding, value.Describe());
}

Status AssignText(const Binding& binding, const std::string& text) {
  // What TOML cannot hold could not be printed and read back.
  if (!ParseToml("value = " + QuoteToml(text), "").ok()) {
    return Wanted(binding, "bytes that are not UTF-8");
  }
  const bool is_text = std::visit([](auto ref) { return kIsText<decltype(ref)>; }, binding.ref);
  const bool is_list = std::visit([](auto ref) { return kIsList<decltype(ref)>; }, binding.ref);
  const bool targets = std::holds_alternative<TargetsRef>(binding.ref);
  const bool quoted = !text.empty() && (text[0] == '"' || text[0] == '\'');
  // The larger half of the unsigned numbers is beyond TOML's integers.
  const bool digits = std::holds_alternative<uint64_t*>(binding.ref) && !text.empty() &&
                      text.find_first_not_of("0123456789") == std::string::npos;
  if ((is_text && !quoted) || digits) return Assign(binding, TextValue(text));

  std::string toml = text;
  if (is_list && !text.empty() && text[0] != '[' && !quoted) {
    const bool numbers = std::holds_alternative<std::vector<int64_t>*>(binding.ref);
    const bool one_target = targets && text.find(',') == std::string::npos;
    if (one_target || !SplitNames(text, toml, !numbers)) return Assign(binding, TextValue(text));
  }
  Result<ConfigValue> parsed = ParseToml("value = " + toml, "");
  const auto* table = parsed.ok() ? parsed->As<ConfigValue::Table>() : nullptr;
  // More than one value: the text went on behind the end of its own.
  if (table == nullptr || table->size() != 1) return Wanted(binding, QuoteToml(text));
  return Assign(binding, table->front().second);
}

namespace {

struct Printer {
  std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
  std::string operator()(const int64_t* value) const { return Str(*value); }
  std::string operator()(const uint64_t* value) const {
    const bool fits = *value <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
    return fits ? Str(*value) : QuoteToml(Str(*value));
  }
  std::string operator()(const double* value) const { return NumberToml(*value); }
  std::string operator()(const std::string* value) const { return QuoteToml(*value); }
  std::string operator()(NumberOrWordRef ref) const {
    int64_t number = 0;
    const char* end = ref.text->data() + ref.text->size();
    const bool digits = std::from_chars(ref.text->data(), end, number).ptr == end;
    return digits && !ref.text->empty() ? *ref.text : QuoteToml(*ref.text);
  }
  std::string operator()(const std::vector<std::string>* list) const {
    return List(*list, [](const std::string& item) { return QuoteToml(item); });
  }
  std::string operator()(const std::vector<int64_t>* list) const {
    return List(*list, [](int64_t item) { return Str(item); });
  }
  template <typename T>
  std::string operator()(const std::vector<std::pair<std::string, T>>* pairs) const {
    std::string text = "{";
    for (const auto& [name, value] : *pairs) {
      text += Str(text.size() > 1 ? ", " : "", KeyToml(name), " = ", (*this)(&value));
    }
    return text + "}";
  }
  std::string operator()(TargetsRef ref) const {
    if (!ref.regex->empty()) return QuoteToml(*ref.regex);
    if (*ref.names == std::vector<std::string>{"all-linear"}) return QuoteToml("all-linear");
    return (*this)(ref.names);
  }

 private:
  template <typename T, typename Print>
  static std::string List(const std::vector<T>& items, Print print) {
    std::string text = "[";
    for (const T& item : items) text += (text.size() > 1 ? ", " : "") + print(item);
    return text + "]";
  }
};

std::string Bound(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? Str(static_cast<int64_t>(value))
                                                              : NumberToml(value);
}

std::string DescribeRange(const Rule& rule) {
  const bool low = std::isfinite(rule.min);
  const bool high = std::isfinite(rule.max);
  std::string text;
  if (low) text += (rule.above_min ? " above " : " from ") + Bound(rule.min);
  if (high && low && rule.above_min != rule.below_max) text += " and";
  if (high)
    text += (rule.below_max           ? " below "
             : low && !rule.above_min ? " to "
                                      : " up to ") +
            Bound(rule.max);
  return text;
}

std::string Words(const Rule& rule) {
  std::string text;
  for (const std::string_view word : rule.words) {
    text += (text.empty() ? "" : ", ") + std::string(word.empty() ? "\"\"" : word);
  }
  return text;
}

struct Describer {
  const Rule& rule;

  std::string operator()(const bool*) const { return "true or false"; }
  std::string operator()(const int64_t*) const { return "integer" + DescribeRange(rule); }
  std::string operator()(const uint64_t*) const {
    const std::string range = DescribeRange(rule);
    return "integer" + (range.empty() ? " from 0" : range);
  }
  std::string operator()(const double*) const { return "number" + DescribeRange(rule); }
  std::string operator()(const std::string*) const {
    if (!rule.words.empty()) return "one of " + Words(rule);
    if (!rule.form_wanted.empty()) return std::string(rule.form_wanted);
    return rule.path ? "path" : "text";
  }
  std::string operator()(const std::vector<std::string>*) const { return "list of texts"; }
  std::string operator()(const std::vector<int64_t>*) const {
    return "list of integers" + DescribeRange(rule);
  }
  std::string operator()(const std::vector<std::pair<std::string, int64_t>>*) const {
    return "table pattern = integer" + DescribeRange(rule);
  }
  std::string operator()(const std::vector<std::pair<std::string, double>>*) const {
    return "table pattern = number" + DescribeRange(rule);
  }
  std::string operator()(const std::vector<std::pair<std::string, std::string>>*) const {
    return "table name = value";
  }
  std::string operator()(TargetsRef) const {
    return "list of module names, \"all-linear\", or a regular expression over whole paths";
  }
  std::string operator()(NumberOrWordRef) const {
    return "integer" + DescribeRange(rule) + ", or one of " + Words(rule);
  }
};

}  // namespace

std::string PrintValue(const Binding& binding) { return std::visit(Printer(), binding.ref); }

std::string DescribeType(const Binding& binding) {
  return std::visit(Describer{binding.rule}, binding.ref);
}

}  // namespace weft
