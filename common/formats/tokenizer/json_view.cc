#include "common/formats/tokenizer/json_view.h"

#include <nlohmann/json.hpp>

#include "common/base/str.h"

namespace weft {
namespace {

using Json = nlohmann::json;

const Json& Node(const void* node) { return *static_cast<const Json*>(node); }

std::string_view Text(const Json& json) { return json.get_ref<const std::string&>(); }

}  // namespace

bool JsonView::is_string() const { return Node(node_).is_string(); }
bool JsonView::is_object() const { return Node(node_).is_object(); }
bool JsonView::is_array() const { return Node(node_).is_array(); }

Status JsonView::Error(std::string_view message) const {
  const bool at_root = path_.ends_with(' ');
  return InvalidArgument(Str(path_, at_root ? "" : ": ", message));
}

Status JsonView::Wanted(std::string_view type) const {
  return Error(Str("got ", Node(node_).type_name(), ", wanted ", type));
}

std::optional<JsonView> JsonView::Find(std::string_view key) const {
  const Json& json = Node(node_);
  if (!json.is_object()) return std::nullopt;
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return std::nullopt;
  return JsonView(&*found, Str(path_, "/", key));
}

Result<JsonView> JsonView::At(std::string_view key) const {
  if (!is_object()) return Wanted("object");
  if (auto member = Find(key)) return *std::move(member);
  return Error(Str("member \"", key, "\" is missing"));
}

Result<std::string> JsonView::String() const {
  if (!is_string()) return Wanted("string");
  return std::string(Text(Node(node_)));
}

Result<bool> JsonView::Bool() const {
  if (!Node(node_).is_boolean()) return Wanted("true or false");
  return Node(node_).get<bool>();
}

namespace {

std::optional<int32_t> AsCount(const Json& json, int32_t max) {
  if (!json.is_number_unsigned()) return std::nullopt;
  const uint64_t value = json.get<uint64_t>();
  if (value > static_cast<uint64_t>(max)) return std::nullopt;
  return static_cast<int32_t>(value);
}

}  // namespace

Result<int32_t> JsonView::Count(int32_t max) const {
  if (const auto count = AsCount(Node(node_), max)) return *count;
  if (!Node(node_).is_number()) return Wanted("integer");
  return Error(Str("got ", Node(node_).dump(), ", wanted an integer in [0, ", max, "]"));
}

Result<std::vector<JsonView>> JsonView::Items() const {
  if (!is_array()) return Wanted("array");
  std::vector<JsonView> items;
  for (const Json& item : Node(node_)) {
    items.emplace_back(&item, Str(path_, "/", items.size()));
  }
  return items;
}

Result<std::vector<std::pair<std::string, JsonView>>> JsonView::Members() const {
  if (!is_object()) return Wanted("object");
  std::vector<std::pair<std::string, JsonView>> members;
  for (const auto& [key, value] : Node(node_).items()) {
    members.emplace_back(key, JsonView(&value, Str(path_, "/", key)));
  }
  return members;
}

Result<std::string> JsonView::StringOr(std::string_view key, std::string fallback) const {
  const auto member = Find(key);
  return member ? member->String() : std::move(fallback);
}

Result<bool> JsonView::BoolOr(std::string_view key, bool fallback) const {
  const auto member = Find(key);
  return member ? member->Bool() : fallback;
}

Result<std::vector<std::pair<std::string_view, int32_t>>> JsonView::Counts(int32_t max) const {
  if (!is_object()) return Wanted("object");
  std::vector<std::pair<std::string_view, int32_t>> counts;
  counts.reserve(Node(node_).size());
  for (const auto& [key, value] : Node(node_).get_ref<const Json::object_t&>()) {
    const auto count = AsCount(value, max);
    if (!count) {
      return Error(Str("\"", key, "\": wanted an integer in [0, ", max, "], got ",
                       value.type_name(), value.is_number() ? " " + value.dump() : ""));
    }
    counts.emplace_back(key, *count);
  }
  return counts;
}

Result<std::vector<std::pair<std::string_view, std::string_view>>> JsonView::Pairs() const {
  if (!is_array()) return Wanted("array");
  std::vector<std::pair<std::string_view, std::string_view>> pairs;
  pairs.reserve(Node(node_).size());
  for (const Json& item : Node(node_)) {
    if (item.is_string()) {
      const std::string_view both = Text(item);
      const size_t blank = both.find(' ');
      if (blank == both.npos || both.find(' ', blank + 1) != both.npos) {
        return Error(
            Str("entry ", pairs.size(), " \"", both, "\": wanted two tokens and one blank"));
      }
      pairs.emplace_back(both.substr(0, blank), both.substr(blank + 1));
    } else if (item.is_array() && item.size() == 2 && item[0].is_string() && item[1].is_string()) {
      pairs.emplace_back(Text(item[0]), Text(item[1]));
    } else {
      return Error(Str("entry ", pairs.size(), ": wanted \"a b\" or [\"a\", \"b\"], got ",
                       item.type_name()));
    }
  }
  return pairs;
}

Result<JsonDocument> JsonDocument::Parse(std::string_view text, std::string_view name) {
  auto json = std::make_shared<Json>(Json::parse(text, nullptr, /*allow_exceptions=*/false));
  if (json->is_discarded()) {
    return InvalidArgument(Str("[", name, "] is not JSON (", text.size(),
                               " bytes): truncated, damaged, or not UTF-8"));
  }
  return JsonDocument(std::move(json), Str("[", name, "] "));
}

JsonView JsonDocument::root() const { return {json_.get(), name_}; }

}  // namespace weft
