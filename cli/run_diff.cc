#include "cli/run_diff.h"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/config/config_value.h"
#include "common/plan/json.h"

namespace weft::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kNone = "none";

// ---- settings ----

std::string TomlText(const ConfigValue& value) {
  struct Printer {
    std::string operator()(bool flag) const { return flag ? "true" : "false"; }
    std::string operator()(int64_t number) const { return std::to_string(number); }
    std::string operator()(double number) const { return NumberToml(number); }
    std::string operator()(const std::string& text) const { return QuoteToml(text); }
    std::string operator()(const ConfigValue::List& list) const {
      std::string text;
      for (const ConfigValue& item : list) text += (text.empty() ? "" : ", ") + TomlText(item);
      return "[" + text + "]";
    }
    std::string operator()(const ConfigValue::Table& table) const {
      std::string text;
      for (const auto& [key, item] : table) {
        text += (text.empty() ? "" : ", ") + KeyToml(key) + " = " + TomlText(item);
      }
      return "{" + text + "}";
    }
  };
  return std::visit(Printer(), value.data);
}

struct FlatSettings {
  std::vector<std::string> order;
  std::map<std::string, std::string> values;

  void Add(const std::string& prefix, const ConfigValue::Table& table) {
    for (const auto& [key, value] : table) {
      const std::string name = prefix + key;
      if (values.emplace(name, TomlText(value)).second) order.push_back(name);
    }
  }
};

std::string NameOf(const ConfigValue::Table& client, size_t number) {
  for (const auto& [key, value] : client) {
    const std::string* name = value.As<std::string>();
    if (key == "name" && name != nullptr && !name->empty()) return *name;
  }
  return std::to_string(number + 1);
}

Result<FlatSettings> Flatten(const ListedRun& run) {
  const Result<ConfigValue> root = ParseToml(run.view.settings_toml, "settings");
  if (!root.ok()) {
    return DataLoss(Str(run.folder.string(),
                        ": the settings in its ledger cannot be read: ", root.status().message()));
  }
  FlatSettings flat;
  for (const auto& [section, value] : *root->As<ConfigValue::Table>()) {
    if (const auto* table = value.As<ConfigValue::Table>()) {
      flat.Add(section + ".", *table);
    } else if (const auto* list = value.As<ConfigValue::List>()) {
      for (size_t i = 0; i < list->size(); ++i) {
        const auto* item = (*list)[i].As<ConfigValue::Table>();
        if (item != nullptr) flat.Add(section + "." + NameOf(*item, i) + ".", *item);
      }
    }
  }
  return flat;
}

Result<std::vector<SettingDiff>> DiffSettings(const ListedRun& a, const ListedRun& b) {
  WEFT_TRY_ASSIGN(const FlatSettings first, Flatten(a));
  WEFT_TRY_ASSIGN(const FlatSettings second, Flatten(b));
  std::vector<SettingDiff> found;
  const auto text = [](const FlatSettings& settings, const std::string& key) {
    const auto it = settings.values.find(key);
    return it == settings.values.end() ? std::string(kNone) : it->second;
  };
  const auto compare = [&](const std::string& key) {
    SettingDiff diff{key, text(first, key), text(second, key)};
    if (diff.a != diff.b) found.push_back(std::move(diff));
  };
  for (const std::string& key : first.order) compare(key);
  for (const std::string& key : second.order) {
    if (first.values.count(key) == 0) compare(key);
  }
  if (a.view.base_hash != b.view.base_hash) {
    found.push_back({"(base model)", a.view.base_hash, b.view.base_hash});
  }
  if (a.view.software != b.view.software) {
    found.push_back({"(software)", a.view.software, b.view.software});
  }
  return found;
}

// ---- rounds ----

// Rows of two sorted lists side by side, by their key.
template <typename Row, typename Key>
std::vector<std::pair<const Row*, const Row*>> SideBySide(const std::vector<Row>& a,
                                                          const std::vector<Row>& b,
                                                          Key Row::*key) {
  std::map<Key, std::pair<const Row*, const Row*>> pairs;
  for (const Row& row : a) pairs[row.*key].first = &row;
  for (const Row& row : b) pairs[row.*key].second = &row;
  std::vector<std::pair<const Row*, const Row*>> rows;
  for (const auto& [value, pair] : pairs) rows.push_back(pair);
  return rows;
}

bool IsSeconds(const std::string& field) { return field.ends_with("_s"); }

Json ClientObject(const RoundRow* round, const ClientRow* client) {
  return client == nullptr ? Json() : Json::parse(ClientJson(*round, *client));
}

std::vector<ClientDiff> DiffClients(const RoundRow& a, const RoundRow& b) {
  std::vector<ClientDiff> found;
  for (const auto& [first, second] : SideBySide(a.clients, b.clients, &ClientRow::client)) {
    ClientDiff diff{first, second, {}};
    if (first == nullptr || second == nullptr) {
      diff.fields.push_back("state");
    } else {
      const Json one = ClientObject(&a, first);
      const Json two = ClientObject(&b, second);
      for (const auto& [field, value] : one.items()) {
        if (!IsSeconds(field) && value != two.at(field)) diff.fields.push_back(field);
      }
    }
    if (!diff.fields.empty()) found.push_back(std::move(diff));
  }
  return found;
}

Result<RoundDiff> DiffRound(const RoundRow* a, const RoundRow* b) {
  RoundDiff diff{a, b, std::nullopt, {}, {}};
  if (a == nullptr || b == nullptr) return diff;
  if (!a->adapter_sha256.empty() && !b->adapter_sha256.empty()) {
    diff.adapter_equal = a->adapter_sha256 == b->adapter_sha256;
  }
  WEFT_TRY_ASSIGN(diff.certificate,
                  CompareCertificates(ToJson(a->certificate), ToJson(b->certificate), 0));
  diff.clients = DiffClients(*a, *b);
  return diff;
}

// ---- tables ----

Cell Pair(const Cell& a, const Cell& b) {
  if (a.pipe == b.pipe) return a;
  return {a.terminal + " → " + b.terminal, a.pipe + " → " + b.pipe};
}

// The cell of `row` in both runs: one value, "A → B", or that of the only run that has the row.
template <typename Row, typename Show>
Cell Both(const Row* a, const Row* b, Show show) {
  if (a == nullptr || b == nullptr) return show(a == nullptr ? *b : *a);
  return Pair(show(*a), show(*b));
}

const char* Where(const void* a, const void* b) {
  return a == nullptr ? "only B" : b == nullptr ? "only A" : "both";
}

Cell Time(const RoundRow& round) {
  if (round.opened_us == 0 || round.published_us == 0) return "-";
  return Cell::Seconds(static_cast<double>(round.published_us - round.opened_us) * 1e-6);
}

Cell Loss(const std::optional<double>& loss) { return Cell::Number(loss, 4); }

Cell Hash(const std::string& hash) {
  return hash.empty() ? Cell("-") : Cell(hash.substr(0, 12), hash);
}

Cell Metric(const RoundRow& round, const std::string& name) {
  for (const auto& [own, value] : round.server_metrics) {
    if (own == name) return Cell::Number(value, 4);
  }
  return "-";
}

// Names of what the aggregators measured beside the loss.
std::set<std::string> MetricsOf(const RunDiff& diff) {
  std::set<std::string> names;
  for (const RoundDiff& round : diff.rounds) {
    for (const RoundRow* row : {round.a, round.b}) {
      if (row == nullptr) continue;
      for (const auto& [name, value] : row->server_metrics) names.insert(name);
    }
  }
  return names;
}

struct RoundColumn {
  Table::Column column;
  std::function<Cell(const RoundRow& round)> show;
};

std::vector<RoundColumn> RoundColumns(const RunDiff& diff) {
  using R = const RoundRow&;
  std::vector<RoundColumn> columns = {
      {{"STATE"}, [](R r) { return Cell(r.state.empty() ? "-" : r.state); }},
      {{"ACCEPTED", true}, [](R r) { return Cell(Str(r.accepted, "/", r.cohort)); }},
      {{"TRAIN_LOSS", true}, [](R r) { return Loss(r.train_loss); }},
      {{"EVAL_LOSS", true}, [](R r) { return Loss(r.clients_loss); }},
      {{"SERVER_LOSS", true}, [](R r) { return Loss(r.server_loss); }}};
  for (const std::string& name : MetricsOf(diff)) {
    columns.push_back({{name, true}, [name](R r) { return Metric(r, name); }});
  }
  const std::vector<RoundColumn> rest = {
      {{"RANK", true}, [](R r) { return Cell::Integer(r.certificate.rank); }},
      {{"EFFECTIVE", true}, [](R r) { return Cell::Number(r.certificate.effective_rank, 2); }},
      {{"ERROR", true}, [](R r) { return Cell::Small(r.certificate.error_published); }},
      {{"TO_IDEAL", true}, [](R r) { return Cell::Small(r.certificate.error_to_ideal); }},
      {{"DOWN", true}, [](R r) { return Cell::Bytes(r.BytesDown()); }},
      {{"UP", true}, [](R r) { return Cell::Bytes(r.BytesUp()); }},
      {{"MERGE", true}, [](R r) { return Cell::Seconds(r.merge_s); }},
      {{"TIME", true}, [](R r) { return Time(r); }},
      {{"ADAPTER"}, [](R r) { return Hash(r.adapter_sha256); }}};
  columns.insert(columns.end(), rest.begin(), rest.end());
  return columns;
}

constexpr std::array kStructure = {"state", "method", "rank"};

bool IsStructural(const ClientDiff& diff) {
  return std::any_of(diff.fields.begin(), diff.fields.end(), [](const std::string& field) {
    return std::find(kStructure.begin(), kStructure.end(), field) != kStructure.end();
  });
}

// ---- JSON ----

Json ClientsJson(const RoundDiff& round) {
  Json list = Json::array();
  for (const ClientDiff& diff : round.clients) {
    const Json one = ClientObject(round.a, diff.a);
    const Json two = ClientObject(round.b, diff.b);
    Json entry = {{"client", (diff.a != nullptr ? diff.a : diff.b)->client},
                  {"a", one.is_null() ? Json(nullptr) : Json::object()},
                  {"b", two.is_null() ? Json(nullptr) : Json::object()}};
    for (const std::string& field : diff.fields) {
      if (!one.is_null()) entry["a"][field] = one.at(field);
      if (!two.is_null()) entry["b"][field] = two.at(field);
    }
    list.push_back(std::move(entry));
  }
  return list;
}

Json RoundObject(const RoundDiff& round) {
  const auto row = [](const RoundRow* r) { return r ? Json::parse(RoundJson(*r)) : Json(nullptr); };
  Json certificate = Json::array();
  for (const CertificateDifference& number : round.certificate) {
    const auto value = [](const std::string& text) {
      return text == kNone ? Json(nullptr) : Json::parse(text);
    };
    certificate.push_back({{"site", number.site},
                           {"field", number.field},
                           {"a", value(number.a)},
                           {"b", value(number.b)}});
  }
  return {{"round", round.round()},
          {"in", round.b == nullptr   ? "a"
                 : round.a == nullptr ? "b"
                                      : "both"},
          {"adapter_equal", round.adapter_equal ? Json(*round.adapter_equal) : Json(nullptr)},
          {"a", row(round.a)},
          {"b", row(round.b)},
          {"certificate", std::move(certificate)},
          {"clients", ClientsJson(round)}};
}

}  // namespace

Result<RunDiff> DiffRuns(const ListedRun& a, const ListedRun& b) {
  RunDiff diff{&a, &b, {}, {}, std::nullopt};
  WEFT_TRY_ASSIGN(diff.settings, DiffSettings(a, b));
  for (const auto& [first, second] : SideBySide(a.view.rounds, b.view.rounds, &RoundRow::round)) {
    WEFT_TRY_ASSIGN(RoundDiff round, DiffRound(first, second));
    if (round.adapter_equal == false && !diff.first_different_round) {
      diff.first_different_round = round.round();
    }
    diff.rounds.push_back(std::move(round));
  }
  return diff;
}

Table SettingsDiffTable(const RunDiff& diff) {
  Table table({{"SETTING"}, {"A"}, {"B"}});
  for (const SettingDiff& setting : diff.settings) table.Add({setting.key, setting.a, setting.b});
  return table;
}

Table RoundsDiffTable(const RunDiff& diff) {
  const std::vector<RoundColumn> columns = RoundColumns(diff);
  std::vector<Table::Column> head = {{"ROUND", true}, {"IN"}};
  for (const RoundColumn& column : columns) head.push_back(column.column);
  Table table(std::move(head));
  for (const RoundDiff& round : diff.rounds) {
    std::vector<Cell> cells = {Cell::Integer(round.round()), Where(round.a, round.b)};
    for (const RoundColumn& column : columns) {
      cells.push_back(Both(round.a, round.b, column.show));
    }
    table.Add(std::move(cells));
  }
  return table;
}

Table ClientsDiffTable(const RunDiff& diff, bool all) {
  using C = const ClientRow&;
  Table table({{"ROUND", true},
               {"CLIENT"},
               {"IN"},
               {"STATE"},
               {"METHOD"},
               {"RANK", true},
               {"SAMPLES", true},
               {"TRAIN_LOSS", true},
               {"EVAL_LOSS", true},
               {"NORM", true},
               {"DOWN", true},
               {"UP", true},
               {"REASON"}});
  const auto text = [](const std::string& value) { return Cell(value.empty() ? "-" : value); };
  for (const RoundDiff& round : diff.rounds) {
    for (const ClientDiff& client : round.clients) {
      if (!all && !IsStructural(client)) continue;
      const ClientRow* a = client.a;
      const ClientRow* b = client.b;
      table.Add({Cell::Integer(round.round()), (a != nullptr ? a : b)->client, Where(a, b),
                 Both(a, b, [&](C c) { return text(c.state); }),
                 Both(a, b, [&](C c) { return text(c.method); }),
                 Both(a, b, [](C c) { return Cell::Integer(c.rank); }),
                 Both(a, b, [](C c) { return Cell(std::to_string(c.num_examples)); }),
                 Both(a, b, [](C c) { return Loss(c.train_loss); }),
                 Both(a, b, [](C c) { return Loss(c.eval_loss); }),
                 Both(a, b, [](C c) { return Cell::Number(c.update_norm, 4); }),
                 Both(a, b, [](C c) { return Cell::Bytes(c.bytes_down); }),
                 Both(a, b, [](C c) { return Cell::Bytes(c.bytes_up); }),
                 Both(a, b, [&](C c) { return text(c.reason); })});
    }
  }
  return table;
}

std::string RunDiffJson(const RunDiff& diff) {
  Json settings = Json::array();
  for (const SettingDiff& setting : diff.settings) {
    settings.push_back({{"key", setting.key}, {"a", setting.a}, {"b", setting.b}});
  }
  Json rounds = Json::array();
  for (const RoundDiff& round : diff.rounds) rounds.push_back(RoundObject(round));
  const Json json = {
      {"a", Json::parse(RunJson(*diff.a))},
      {"b", Json::parse(RunJson(*diff.b))},
      {"first_different_round",
       diff.first_different_round ? Json(*diff.first_different_round) : Json(nullptr)},
      {"settings", std::move(settings)},
      {"rounds", std::move(rounds)}};
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace weft::cli
