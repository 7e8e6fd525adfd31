#include "common/formats/config_fields.h"

#include <cmath>
#include <limits>
#include <utility>

#include <nlohmann/json.hpp>

namespace weft {
namespace {

using Json = nlohmann::json;

const Json& AsJson(const void* value) { return *static_cast<const Json*>(value); }

// A value as an error shows it: short, printable.
std::string Shown(const Json& value) {
  if (value.is_object()) return "an object";
  if (value.is_array()) return "a list";
  return value.dump(-1, ' ', /*ensure_ascii=*/true).substr(0, 80);
}

std::optional<int64_t> WholeNumber(const Json& value, int64_t min, int64_t max) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() &&
      value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return std::nullopt;
  }
  const auto number = value.get<int64_t>();
  if (number < min || number > max) return std::nullopt;
  return number;
}

}  // namespace

size_t ConfigFields::size() const { return AsJson(object_).size(); }

const void* ConfigFields::Find(std::string_view name) const {
  const Json& object = AsJson(object_);
  const auto found = object.find(name);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool ConfigFields::Has(std::string_view name) const { return Find(name) != nullptr; }

bool ConfigFields::HasKey(std::string_view name) const { return AsJson(object_).contains(name); }

Status ConfigFields::Error(std::string_view name, std::string_view message) const {
  return InvalidArgument(Str(where_, ": field ", name, ": ", message));
}

Result<int64_t> ConfigFields::Int(std::string_view name, int64_t min, int64_t max,
                                  std::optional<int64_t> fallback) const {
  const void* value = Find(name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Error(name, "is missing");
  if (const auto number = WholeNumber(AsJson(value), min, max)) return *number;
  return Error(
      name, Str("got ", Shown(AsJson(value)), ", wanted a whole number from ", min, " to ", max));
}

Result<double> ConfigFields::Number(std::string_view name, double min, double max,
                                    std::optional<double> fallback) const {
  const void* value = Find(name);
  if (value == nullptr && fallback) return *fallback;
  if (value == nullptr) return Error(name, "is missing");
  const Json& json = AsJson(value);
  if (json.is_number()) {
    const auto number = json.get<double>();
    if (std::isfinite(number) && number >= min && number <= max) return number;
  }
  return Error(name, Str("got ", Shown(json), ", wanted a number from ", min, " to ", max));
}

Result<bool> ConfigFields::Bool(std::string_view name, bool fallback) const {
  const void* value = Find(name);
  if (value == nullptr) return fallback;
  if (AsJson(value).is_boolean()) return AsJson(value).get<bool>();
  return Error(name, Str("got ", Shown(AsJson(value)), ", wanted true or false"));
}

Result<std::string> ConfigFields::Text(std::string_view name,
                                       std::optional<std::string> fallback) const {
  const void* value = Find(name);
  if (value == nullptr && fallback) return *std::move(fallback);
  if (value == nullptr) return Error(name, "is missing");
  if (AsJson(value).is_string()) return AsJson(value).get<std::string>();
  return Error(name, Str("got ", Shown(AsJson(value)), ", wanted text"));
}

Result<std::vector<std::string>> ConfigFields::Texts(std::string_view name) const {
  std::vector<std::string> texts;
  const void* value = Find(name);
  if (value == nullptr) return texts;
  if (!AsJson(value).is_array()) {
    return Error(name, Str("got ", Shown(AsJson(value)), ", wanted a list of texts"));
  }
  for (const Json& item : AsJson(value)) {
    if (!item.is_string()) return Error(name, Str("got ", Shown(item), ", wanted a text"));
    texts.push_back(item.get<std::string>());
  }
  return texts;
}

Result<std::vector<int64_t>> ConfigFields::Ints(std::string_view name, int64_t min,
                                                int64_t max) const {
  std::vector<int64_t> numbers;
  const void* value = Find(name);
  if (value == nullptr) return numbers;
  const Json list = AsJson(value).is_array() ? AsJson(value) : Json::array({AsJson(value)});
  for (const Json& item : list) {
    const auto number = WholeNumber(item, min, max);
    if (!number) {
      return Error(name, Str("got ", Shown(item), ", wanted a whole number from ", min, " to ", max,
                             " or a list of them"));
    }
    numbers.push_back(*number);
  }
  return numbers;
}

Result<std::optional<ConfigFields>> ConfigFields::Object(std::string_view name) const {
  const void* value = Find(name);
  if (value == nullptr) return std::optional<ConfigFields>();
  if (!AsJson(value).is_object()) {
    return Error(name, Str("got ", Shown(AsJson(value)), ", wanted an object"));
  }
  return std::optional<ConfigFields>(ConfigFields(value, Str(where_, ": ", name)));
}

}  // namespace weft
