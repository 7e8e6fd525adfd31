#include <limits>

#include <nlohmann/json.hpp>

#include "common/base/str.h"
#include "common/data/token_rows.h"
#include "common/formats/line_reader.h"

namespace weft {
namespace {

using Json = nlohmann::json;

class BatchParser {
 public:
  BatchParser(std::string where, int64_t vocab_size)
      : where_(std::move(where)), vocab_size_(vocab_size) {}

  Result<FixedBatch> Run(const std::string& line) const {
    const Json json = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) return Wrong("no JSON object");
    FixedBatch batch;
    const auto split = json.find("split");
    batch.split = split != json.end() && split->is_string() ? split->get<std::string>() : "train";
    if (batch.split != "train" && batch.split != "eval") {
      return Wrong("split is \"" + batch.split + "\", wanted \"train\" or \"eval\"");
    }
    const auto ids = json.find("input_ids");
    const auto labels = json.find("labels");
    if (ids == json.end() || labels == json.end() || !ids->is_array() || !labels->is_array() ||
        ids->empty() || ids->size() != labels->size()) {
      return Wrong("wanted \"input_ids\" and \"labels\", lists of as many rows each");
    }
    for (size_t i = 0; i < ids->size(); ++i) {
      WEFT_TRY_ASSIGN(TokenRow row, ParseRow((*ids)[i], (*labels)[i]));
      batch.rows.push_back(std::move(row));
    }
    return batch;
  }

 private:
  Status Wrong(const std::string& what) const {
    return InvalidArgument("[data] " + where_ + ": " + what);
  }

  Result<TokenRow> ParseRow(const Json& ids, const Json& labels) const {
    if (!ids.is_array() || !labels.is_array() || ids.empty() || ids.size() != labels.size()) {
      return Wrong("a row's ids and labels differ in length, or are no lists");
    }
    TokenRow row;
    for (const Json& id : ids) {
      WEFT_TRY_ASSIGN(const int32_t token, Token(id, /*may_be_absent=*/false));
      row.ids.push_back(token);
    }
    for (const Json& label : labels) {
      WEFT_TRY_ASSIGN(const int32_t token, Token(label, /*may_be_absent=*/true));
      row.labels.push_back(token);
    }
    return row;
  }

  Result<int32_t> Token(const Json& value, bool may_be_absent) const {
    // What does not fit would come out as another number.
    const bool fits = value.is_number_integer() &&
                      !(value.is_number_unsigned() &&
                        value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()});
    if (fits) {
      const auto id = value.get<int64_t>();
      if (may_be_absent && id == kNoLabel) return kNoLabel;
      if (id >= 0 && id < vocab_size_) return static_cast<int32_t>(id);
    }
    return Wrong(Str("token ", value.is_number() ? value.dump() : value.type_name(),
                     ", wanted 0 to ", vocab_size_ - 1));
  }

  std::string where_;
  int64_t vocab_size_;
};

}  // namespace

Result<std::vector<FixedBatch>> ReadFixedBatches(const std::filesystem::path& path,
                                                 int64_t vocab_size) {
  WEFT_TRY_ASSIGN(LineReader lines, LineReader::Open(path));
  std::vector<FixedBatch> batches;
  std::string line;
  while (true) {
    WEFT_TRY_ASSIGN(const bool more, lines.Next(line));
    if (!more) break;
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    const BatchParser parser(lines.where(), vocab_size);
    WEFT_TRY_ASSIGN(FixedBatch batch, parser.Run(line));
    batch.line = lines.number();
    batches.push_back(std::move(batch));
  }
  if (batches.empty()) return InvalidArgument("[data] " + path.string() + ": holds no batch");
  return batches;
}

}  // namespace weft
