// The one door through which the plan's structs meet the JSON library.
#include "common/plan/json_fields.h"

#include <cmath>
#include <limits>

#include <nlohmann/json.hpp>

#include "common/base/json_depth.h"
#include "common/base/limits.h"
#include "common/base/str.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;

Json FromDouble(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  return value;
}

bool ToDouble(const Json& json, double& value) {
  if (json.is_number()) {
    value = json.get<double>();
    return true;
  }
  if (!json.is_string()) return false;
  const auto& word = json.get_ref<const std::string&>();
  if (word == "nan") value = std::numeric_limits<double>::quiet_NaN();
  if (word == "inf") value = std::numeric_limits<double>::infinity();
  if (word == "-inf") value = -std::numeric_limits<double>::infinity();
  return word == "nan" || word == "inf" || word == "-inf";
}

bool ToSigned(const Json& json, int64_t& value) {
  if (!json.is_number_integer()) return false;
  if (json.is_number_unsigned() &&
      json.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return false;
  }
  value = json.get<int64_t>();
  return true;
}

bool ToUnsigned(const Json& json, uint64_t& value) {
  if (!json.is_number_integer()) return false;
  if (!json.is_number_unsigned() && json.get<int64_t>() < 0) return false;
  value = json.get<uint64_t>();
  return true;
}

bool ToText(const Json& json, std::string& value) {
  if (!json.is_string()) return false;
  value = json.get<std::string>();
  return true;
}

bool ToText(const Json& json, ClientId& value) { return ToText(json, value.name); }

template <typename T, typename Convert>
bool ToList(const Json& json, std::vector<T>& values, Convert convert) {
  if (!json.is_array()) return false;
  values.clear();
  for (const Json& item : json) {
    T value{};
    if (!convert(item, value)) return false;
    values.push_back(std::move(value));
  }
  return true;
}

template <typename T, typename Convert>
bool ToNamed(const Json& json, NamedValues<T>& values, Convert convert) {
  return ToList(json, values, [&](const Json& item, std::pair<std::string, T>& value) {
    return item.is_array() && item.size() == 2 && ToText(item[0], value.first) &&
           convert(item[1], value.second);
  });
}

}  // namespace

struct JsonWriter::Node {
  Json json = Json::object();
};

JsonWriter::JsonWriter() : node_(std::make_unique<Node>()) {}
JsonWriter::~JsonWriter() = default;
JsonWriter::JsonWriter(JsonWriter&&) noexcept = default;
JsonWriter& JsonWriter::operator=(JsonWriter&&) noexcept = default;

std::string JsonWriter::Text() const {
  // Bytes that are no UTF-8 become U+FFFD: a peer's text must not make writing fail.
  return node_->json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void JsonWriter::Put(std::string_view key, bool value) { node_->json[std::string(key)] = value; }
void JsonWriter::Put(std::string_view key, int64_t value) { node_->json[std::string(key)] = value; }
void JsonWriter::Put(std::string_view key, uint64_t value) {
  node_->json[std::string(key)] = value;
}
void JsonWriter::Put(std::string_view key, double value) {
  node_->json[std::string(key)] = FromDouble(value);
}
void JsonWriter::Put(std::string_view key, const std::string& value) {
  node_->json[std::string(key)] = value;
}
void JsonWriter::Put(std::string_view key, const std::vector<std::string>& value) {
  node_->json[std::string(key)] = value;
}
void JsonWriter::Put(std::string_view key, const std::vector<int64_t>& value) {
  node_->json[std::string(key)] = value;
}
void JsonWriter::Put(std::string_view key, const std::vector<ClientId>& value) {
  Json& list = node_->json[std::string(key)] = Json::array();
  for (const ClientId& client : value) list.push_back(client.name);
}
void JsonWriter::Put(std::string_view key, const NamedValues<double>& value) {
  Json& list = node_->json[std::string(key)] = Json::array();
  for (const auto& [name, number] : value) list.push_back(Json::array({name, FromDouble(number)}));
}
void JsonWriter::Put(std::string_view key, const NamedValues<int64_t>& value) {
  Json& list = node_->json[std::string(key)] = Json::array();
  for (const auto& [name, number] : value) list.push_back(Json::array({name, number}));
}
void JsonWriter::Put(std::string_view key, const NamedValues<std::string>& value) {
  Json& list = node_->json[std::string(key)] = Json::array();
  for (const auto& [name, text] : value) list.push_back(Json::array({name, text}));
}
void JsonWriter::PutObject(std::string_view key, JsonWriter inner) {
  node_->json[std::string(key)] = std::move(inner.node_->json);
}
void JsonWriter::PutObjects(std::string_view key, std::vector<JsonWriter> inner) {
  Json& list = node_->json[std::string(key)] = Json::array();
  for (JsonWriter& item : inner) list.push_back(std::move(item.node_->json));
}

struct JsonReader::Node {
  Json json = Json::object();
  const Json* found = nullptr;  // what Find() last came to
};

JsonReader::JsonReader() : node_(std::make_unique<Node>()) {}
JsonReader::JsonReader(std::string_view text) : JsonReader() {
  if (text.size() > limits::kJsonBytesMax) {
    status_ = ResourceExhausted(
        Str("[json] ", text.size(), " bytes, at most ", limits::kJsonBytesMax, " are read"));
    return;
  }
  if (!JsonDepthWithin(text)) {
    status_ =
        InvalidArgument(Str("[json] nested deeper than ", limits::kJsonNestingMax, " levels"));
    return;
  }
  node_->json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (node_->json.is_discarded()) {
    status_ = InvalidArgument(Str("[json] not JSON: ", text.substr(0, 80)));
  } else if (!node_->json.is_object()) {
    status_ = InvalidArgument(Str("[json] got ", node_->json.type_name(), ", wanted an object"));
  }
}
JsonReader::~JsonReader() = default;
JsonReader::JsonReader(JsonReader&&) noexcept = default;
JsonReader& JsonReader::operator=(JsonReader&&) noexcept = default;

bool JsonReader::Find(std::string_view key, bool required) {
  const auto it = node_->json.find(std::string(key));
  if (it == node_->json.end()) {
    if (required) status_ = InvalidArgument(Str("[json] ", key, ": missing"));
    return false;
  }
  node_->found = &*it;
  return true;
}

void JsonReader::Fail(std::string_view key, std::string_view wanted) {
  std::string got = node_->found->dump(-1, ' ', false, Json::error_handler_t::replace);
  if (got.size() > 60) got = got.substr(0, 57) + "...";
  status_ = InvalidArgument(Str("[json] ", key, ": got ", got, ", wanted ", wanted));
}

void JsonReader::Keep(std::string_view key, const JsonReader& inner) {
  if (!status_.ok() || inner.status_.ok()) return;
  constexpr std::string_view kDoor = "[json] ";
  std::string message = inner.status_.message();
  if (message.compare(0, kDoor.size(), kDoor) == 0) message.erase(0, kDoor.size());
  status_ = Status(inner.status_.code(), Str(kDoor, key, ".", message));
}

void JsonReader::Take(std::string_view key, bool& value) {
  if (!node_->found->is_boolean()) return Fail(key, "true or false");
  value = node_->found->get<bool>();
}
void JsonReader::Take(std::string_view key, int64_t& value) {
  if (!ToSigned(*node_->found, value)) Fail(key, "an integer");
}
void JsonReader::Take(std::string_view key, uint64_t& value) {
  if (!ToUnsigned(*node_->found, value)) Fail(key, "an integer from 0");
}
void JsonReader::Take(std::string_view key, uint32_t& value) {
  uint64_t wide = 0;
  if (!ToUnsigned(*node_->found, wide) || wide > std::numeric_limits<uint32_t>::max()) {
    return Fail(key, "an integer from 0 to 4294967295");
  }
  value = static_cast<uint32_t>(wide);
}
void JsonReader::Take(std::string_view key, double& value) {
  if (!ToDouble(*node_->found, value)) Fail(key, "a number");
}
void JsonReader::Take(std::string_view key, std::string& value) {
  if (!ToText(*node_->found, value)) Fail(key, "a string");
}
void JsonReader::Take(std::string_view key, std::vector<std::string>& value) {
  const auto convert = [](const Json& json, std::string& text) { return ToText(json, text); };
  if (!ToList(*node_->found, value, convert)) Fail(key, "a list of strings");
}
void JsonReader::Take(std::string_view key, std::vector<int64_t>& value) {
  if (!ToList(*node_->found, value, ToSigned)) Fail(key, "a list of integers");
}
void JsonReader::Take(std::string_view key, std::vector<ClientId>& value) {
  const auto convert = [](const Json& json, ClientId& client) { return ToText(json, client); };
  if (!ToList(*node_->found, value, convert)) Fail(key, "a list of strings");
}
void JsonReader::Take(std::string_view key, NamedValues<double>& value) {
  if (!ToNamed(*node_->found, value, ToDouble)) Fail(key, "a list of [name, number]");
}
void JsonReader::Take(std::string_view key, NamedValues<int64_t>& value) {
  if (!ToNamed(*node_->found, value, ToSigned)) Fail(key, "a list of [name, integer]");
}
void JsonReader::Take(std::string_view key, NamedValues<std::string>& value) {
  const auto convert = [](const Json& json, std::string& text) { return ToText(json, text); };
  if (!ToNamed(*node_->found, value, convert)) Fail(key, "a list of [name, string]");
}

JsonReader JsonReader::TakeObject(std::string_view key) {
  JsonReader inner;
  if (node_->found->is_object()) {
    inner.node_->json = *node_->found;
  } else {
    Fail(key, "an object");
  }
  return inner;
}

std::vector<JsonReader> JsonReader::TakeObjects(std::string_view key) {
  std::vector<JsonReader> inner;
  if (!node_->found->is_array()) {
    Fail(key, "a list of objects");
    return inner;
  }
  for (const Json& item : *node_->found) {
    if (!item.is_object()) {
      Fail(key, "a list of objects");
      return {};
    }
    JsonReader reader;
    reader.node_->json = item;
    inner.push_back(std::move(reader));
  }
  return inner;
}

}  // namespace weft
