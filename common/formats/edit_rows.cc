#include "common/formats/edit_rows.h"

#include <algorithm>
#include <array>

#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/formats/line_reader.h"

namespace weft {
namespace {

using Json = nlohmann::json;

constexpr std::array kTargetNames = {"target_new", "target", "completion"};
constexpr size_t kParaphrasesMax = 1024;

bool IsBlank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == text.npos; }

Status TakeTarget(const Json& json, const std::string& where, EditRow& row) {
  for (const char* name : kTargetNames) {
    const auto found = json.find(name);
    if (found == json.end() || found->is_null()) continue;
    if (!found->is_string() || IsBlank(found->get_ref<const std::string&>())) {
      return InvalidArgument(Str(where, "field ", name, ": wanted a string that is not blank"));
    }
    row.target = found->get<std::string>();
    return OkStatus();
  }
  return OkStatus();
}

Status TakeParaphrases(const Json& json, const std::string& where, EditRow& row) {
  const auto found = json.find("paraphrases");
  if (found == json.end() || found->is_null()) return OkStatus();
  const bool texts = found->is_array() && found->size() <= kParaphrasesMax &&
                     std::all_of(found->begin(), found->end(), [](const Json& entry) {
                       return entry.is_string() && !IsBlank(entry.get_ref<const std::string&>());
                     });
  if (!texts) {
    return InvalidArgument(Str(where, "field paraphrases: wanted a list of at most ",
                               kParaphrasesMax, " strings that are not blank"));
  }
  row.paraphrases = found->get<std::vector<std::string>>();
  return OkStatus();
}

}  // namespace

Result<EditRow> ParseEdit(std::string_view line, std::string_view file, uint64_t number,
                          EditTarget target) {
  const std::string where = Str("[edit] ", file, ":", number, ": ");
  const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return InvalidArgument(where + "is no JSON object in UTF-8; wanted one a line");
  }
  EditRow row;
  row.line = number;
  const auto prompt = json.find("prompt");
  if (prompt == json.end() || !prompt->is_string() ||
      IsBlank(prompt->get_ref<const std::string&>())) {
    return InvalidArgument(where + "field prompt: wanted a string that is not blank");
  }
  row.prompt = prompt->get<std::string>();
  WEFT_TRY(TakeTarget(json, where, row));
  if (row.target.empty() && target == EditTarget::kNeeded) {
    return InvalidArgument(where +
                           "no new answer; wanted a field target_new, target or completion");
  }
  WEFT_TRY(TakeParaphrases(json, where, row));
  return row;
}

Result<std::vector<EditRow>> ReadEdits(const std::filesystem::path& path, EditTarget target,
                                       uint64_t skip, uint64_t rows_max) {
  WEFT_TRY_ASSIGN(LineReader lines, LineReader::Open(path));
  std::vector<EditRow> rows;
  std::string line;
  uint64_t seen = 0;
  while (rows_max == 0 || rows.size() < rows_max) {
    WEFT_TRY_ASSIGN(const bool more, lines.Next(line));
    if (!more) break;
    std::string_view text = line;
    if (lines.number() == 1 && text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
    if (IsBlank(text)) continue;
    if (seen++ < skip) continue;
    WEFT_TRY_ASSIGN(EditRow row, ParseEdit(text, path.string(), lines.number(), target));
    rows.push_back(std::move(row));
  }
  if (seen > 0) return rows;
  return InvalidArgument(Str("[edit] ", path.string(), ": holds no rows; wanted JSONL with prompt",
                             target == EditTarget::kNeeded ? " and target_new" : ""));
}

}  // namespace weft
