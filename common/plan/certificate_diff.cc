#include "common/plan/certificate_diff.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/str.h"

namespace weft {
namespace {

using Json = nlohmann::ordered_json;
using Place = std::pair<std::string, std::string>;  // site, field

// One certificate as single values.
struct Values {
  std::vector<Place> order;
  std::map<Place, Json> at;
  std::set<std::string> fields;  // without what follows a point or bracket

  void Add(const std::string& site, const std::string& field, const Json& value) {
    fields.insert(field.substr(0, field.find_first_of(".[")));
    if (value.is_object()) return AddObject(site, field + ".", value);
    if (value.is_array()) return AddList(site, field, value);
    if (at.emplace(Place(site, field), value).second) order.emplace_back(site, field);
  }

  void AddObject(const std::string& site, const std::string& prefix, const Json& object) {
    for (const auto& [key, value] : object.items()) Add(site, prefix + key, value);
  }

  // Lists of sites, of [name, value], and plain ones.
  void AddList(const std::string& site, const std::string& field, const Json& list) {
    for (size_t i = 0; i < list.size(); ++i) {
      const Json& item = list[i];
      if (item.is_object() && item.contains("path") && item["path"].is_string()) {
        AddObject(item["path"].get<std::string>(), "", item);
      } else if (item.is_array() && item.size() == 2 && item[0].is_string()) {
        Add(site, field + "." + item[0].get<std::string>(), item[1]);
      } else {
        Add(site, Str(field, "[", i, "]"), item);
      }
    }
  }
};

Result<Values> ValuesOf(std::string_view text) {
  const Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) {
    return InvalidArgument(
        Str("[certificate] got ", text.substr(0, 80), ", wanted a certificate's JSON object"));
  }
  Values values;
  values.AddObject("", "", json);
  return values;
}

bool Equal(const Json& a, const Json& b, double tolerance) {
  if (!a.is_number() || !b.is_number()) return a == b;
  const auto x = a.get<double>();
  const auto y = b.get<double>();
  return x == y || std::abs(x - y) <= tolerance * std::max(std::abs(x), std::abs(y));
}

std::string Text(const Values& values, const Place& place) {
  const auto found = values.at.find(place);
  if (found == values.at.end()) return "none";
  return found->second.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Result<std::vector<CertificateDifference>> CompareCertificates(std::string_view a,
                                                               std::string_view b,
                                                               double tolerance) {
  WEFT_TRY_ASSIGN(const Values first, ValuesOf(a));
  WEFT_TRY_ASSIGN(const Values second, ValuesOf(b));
  std::vector<CertificateDifference> differences;
  const auto differ = [&](const Place& place) {
    differences.push_back({place.first, place.second, Text(first, place), Text(second, place)});
  };
  for (const Place& place : first.order) {
    const auto other = second.at.find(place);
    if (other == second.at.end() || !Equal(first.at.at(place), other->second, tolerance)) {
      differ(place);
    }
  }
  for (const Place& place : second.order) {
    const std::string field = place.second.substr(0, place.second.find_first_of(".["));
    if (first.at.count(place) == 0 && first.fields.count(field) > 0) differ(place);
  }
  return differences;
}

std::string Describe(const CertificateDifference& difference) {
  return Str(difference.site.empty() ? "" : Str("site ", difference.site, ": "), difference.field,
             ": got ", difference.a, ", wanted ", difference.b);
}

}  // namespace weft
