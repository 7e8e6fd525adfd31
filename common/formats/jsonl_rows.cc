#include "common/formats/jsonl_rows.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "common/base/check.h"
#include "common/formats/line_reader.h"

namespace weft {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kWanted =
    "prompt and completion, context and completion, instruction and output, prompt and choices and "
    "answer, text, input and output, or messages";
constexpr size_t kMessagesMax = 65536;
constexpr size_t kChoicesMax = 1024;

// The names a kind's parts have in its file; empty: it has no such part.
struct Shape {
  RowKind kind;
  std::string_view prompt;
  std::string_view input;
  std::string_view completion;
};

constexpr std::array<Shape, 5> kShapes = {{
    {RowKind::kPrompt, "prompt", "", "completion"},
    {RowKind::kContext, "context", "", "completion"},
    {RowKind::kAlpaca, "instruction", "input", "output"},
    {RowKind::kText, "", "", "text"},
    {RowKind::kInput, "input", "", "output"},
}};

const Shape* ShapeOf(RowKind kind) {
  for (const Shape& shape : kShapes) {
    if (shape.kind == kind) return &shape;
  }
  return nullptr;
}

bool HasField(const Json& json, std::string_view name) {
  const auto found = json.find(name);
  return found != json.end() && !found->is_null();
}

std::string NamesOf(const Json& json) {
  std::string names;
  for (const auto& [name, value] : json.items()) {
    if (names.size() > 300) return names + ", …";
    names += (names.empty() ? "" : ", ") + name.substr(0, 64);
  }
  return names.empty() ? "no fields" : names;
}

Status TakeText(const Json& json, std::string_view name, const std::string& where,
                std::string& out) {
  const Json& value = *json.find(name);
  if (!value.is_string()) {
    return InvalidArgument(
        Str(where, "field ", name, ": got ", value.type_name(), ", wanted a string"));
  }
  out = value.get<std::string>();
  return OkStatus();
}

Status TakeMessages(const Json& json, const std::string& where, Row& row) {
  const Json& list = json["messages"];
  if (!list.is_array() || list.empty() || list.size() > kMessagesMax) {
    return InvalidArgument(Str(where, "field messages: got ",
                               list.is_array() ? Str(list.size(), " messages") : list.type_name(),
                               ", wanted a list of 1 to ", kMessagesMax, " messages"));
  }
  for (const Json& entry : list) {
    const std::string at = Str(where, "messages[", row.messages.size(), "]: ");
    if (!entry.is_object() || !HasField(entry, "role") || !HasField(entry, "content")) {
      return InvalidArgument(Str(at, "got ", entry.is_object() ? NamesOf(entry) : entry.type_name(),
                                 ", wanted role and content"));
    }
    ChatMessage message;
    WEFT_TRY(TakeText(entry, "role", at, message.role));
    WEFT_TRY(TakeText(entry, "content", at, message.content));
    row.messages.push_back(std::move(message));
  }
  return OkStatus();
}

// The completion is the choice that answers: "answer" says which, by its text or its number.
Status TakeChoices(const Json& json, const std::string& where, Row& row) {
  const Json& list = json["choices"];
  const bool texts =
      list.is_array() &&
      std::all_of(list.begin(), list.end(), [](const Json& entry) { return entry.is_string(); });
  if (!texts || list.size() < 2 || list.size() > kChoicesMax) {
    return InvalidArgument(
        Str(where, "field choices: wanted a list of 2 to ", kChoicesMax, " strings"));
  }
  row.kind = RowKind::kPrompt;
  row.choices = list.get<std::vector<std::string>>();
  WEFT_TRY(TakeText(json, "prompt", where, row.prompt));
  const Json& answer = json["answer"];
  if (answer.is_string()) {
    row.completion = answer.get<std::string>();
    const bool known =
        std::find(row.choices.begin(), row.choices.end(), row.completion) != row.choices.end();
    if (known) return OkStatus();
  } else if (answer.is_number_unsigned() && answer.get<uint64_t>() < row.choices.size()) {
    row.completion = row.choices[answer.get<size_t>()];
    return OkStatus();
  }
  return InvalidArgument(Str(where, "field answer: wanted one of the ", row.choices.size(),
                             " choices, or its number from 0"));
}

// Takes the parts of the first shape the object has; false: it has none of them.
Result<bool> TakeShape(const Json& json, const std::string& where, Row& row) {
  if (HasField(json, "messages")) {
    row.kind = RowKind::kMessages;
    WEFT_TRY(TakeMessages(json, where, row));
    return true;
  }
  if (HasField(json, "prompt") && HasField(json, "choices") && HasField(json, "answer")) {
    WEFT_TRY(TakeChoices(json, where, row));
    return true;
  }
  for (const Shape& shape : kShapes) {
    const bool prompted = shape.prompt.empty() || HasField(json, shape.prompt);
    if (!prompted || !HasField(json, shape.completion)) continue;
    row.kind = shape.kind;
    if (!shape.prompt.empty()) WEFT_TRY(TakeText(json, shape.prompt, where, row.prompt));
    if (!shape.input.empty() && HasField(json, shape.input)) {
      WEFT_TRY(TakeText(json, shape.input, where, row.input));
    }
    WEFT_TRY(TakeText(json, shape.completion, where, row.completion));
    return true;
  }
  return false;
}

void TakeOtherFields(const Json& json, Row& row) {
  const Shape* const shape = ShapeOf(row.kind);
  for (const auto& [name, value] : json.items()) {
    if (shape != nullptr &&
        (name == shape->prompt || name == shape->input || name == shape->completion)) {
      continue;
    }
    if (value.is_string()) row.fields.emplace_back(name, value.get<std::string>());
    if (value.is_number() || value.is_boolean()) row.fields.emplace_back(name, value.dump());
  }
}

}  // namespace

std::optional<std::string_view> Row::Field(std::string_view name) const {
  if (const Shape* const shape = ShapeOf(kind)) {
    if (!shape->prompt.empty() && name == shape->prompt) return prompt;
    if (!shape->input.empty() && name == shape->input) return input;
    if (name == shape->completion) return completion;
  }
  const auto found = std::lower_bound(
      fields.begin(), fields.end(), name,
      [](const auto& field, std::string_view wanted) { return field.first < wanted; });
  if (found == fields.end() || found->first != name) return std::nullopt;
  return found->second;
}

RowText TextOf(const Row& row) {
  WEFT_CHECK(row.kind != RowKind::kMessages, "line ", row.line, " is a conversation");
  if (row.kind == RowKind::kText) return {{}, row.completion};
  std::string prompt = row.prompt;
  if (row.kind == RowKind::kAlpaca && !row.input.empty()) prompt += "\n" + row.input;
  return {prompt + "\n", row.completion};
}

std::optional<std::vector<ChatMessage>> MessagesOf(const Row& row) {
  if (row.kind == RowKind::kText) return std::nullopt;
  if (row.kind == RowKind::kMessages) return row.messages;
  RowText text = TextOf(row);
  text.prompt.pop_back();
  return std::vector<ChatMessage>{{"user", std::move(text.prompt)},
                                  {"assistant", std::move(text.completion)}};
}

Result<Row> ParseRow(std::string_view line, std::string_view file, uint64_t number) {
  const std::string where = Str("[data] ", file, ":", number, ": ");
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return InvalidArgument(Str(where, "is not JSON in UTF-8; wanted one object a line"));
  }
  if (!json.is_object()) {
    return InvalidArgument(Str(where, "got ", json.type_name(), ", wanted an object"));
  }
  Row row;
  row.line = number;
  WEFT_TRY_ASSIGN(const bool known, TakeShape(json, where, row));
  if (!known) return InvalidArgument(Str(where, "got ", NamesOf(json), "; wanted ", kWanted));
  TakeOtherFields(json, row);
  return row;
}

Status ForEachRow(const std::filesystem::path& path, const std::function<bool(Row&&)>& take) {
  WEFT_TRY_ASSIGN(LineReader lines, LineReader::Open(path));
  std::string line;
  uint64_t rows = 0;
  while (true) {
    WEFT_TRY_ASSIGN(const bool more, lines.Next(line));
    if (!more) break;
    std::string_view text = line;
    if (lines.number() == 1 && text.substr(0, 3) == "\xEF\xBB\xBF") text.remove_prefix(3);
    if (text.find_first_not_of(" \t\r") == text.npos) continue;
    WEFT_TRY_ASSIGN(Row row, ParseRow(text, path.string(), lines.number()));
    ++rows;
    if (!take(std::move(row))) return OkStatus();
  }
  if (rows > 0) return OkStatus();
  return InvalidArgument(
      Str("[data] ", path.string(), ": holds no rows; wanted JSONL with ", kWanted));
}

Result<std::vector<Row>> ReadRows(const std::filesystem::path& path, uint64_t rows_max) {
  std::vector<Row> rows;
  WEFT_TRY(ForEachRow(path, [&rows, rows_max](Row&& row) {
    rows.push_back(std::move(row));
    return rows_max == 0 || rows.size() < rows_max;
  }));
  return rows;
}

}  // namespace weft
