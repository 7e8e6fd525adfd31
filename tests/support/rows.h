#pragma once
// Token rows as packed batches, the way tests need them; reads JSONL rows of {"context",
// "completion"} or {"text"} by the rule of training (prompt, newline, completion, end of sequence).

#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "common/formats/tokenizer.h"
#include "common/model/model.h"

namespace weft::testing {

struct Row {
  std::vector<int64_t> ids;
  size_t prompt = 1;  // tokens before the first labelled one
};

inline PackedBatch Pack(const std::vector<Row>& rows, int64_t first = 0, int64_t count = -1) {
  std::vector<int64_t> ids, positions, label_at, labels;
  PackedBatch batch;
  batch.row_starts.push_back(0);
  const auto last = count < 0 ? rows.size() : static_cast<size_t>(first + count);
  for (auto r = static_cast<size_t>(first); r < last; ++r) {
    for (size_t t = 0; t < rows[r].ids.size(); ++t) {
      if (t + 1 < rows[r].ids.size() && t + 1 >= rows[r].prompt) {
        label_at.push_back(static_cast<int64_t>(ids.size()));
        labels.push_back(rows[r].ids[t + 1]);
      }
      ids.push_back(rows[r].ids[t]);
      positions.push_back(static_cast<int64_t>(t));
    }
    batch.row_starts.push_back(static_cast<int64_t>(ids.size()));
  }
  batch.ids_N = at::tensor(ids, at::kLong);
  batch.positions_N = at::tensor(positions, at::kLong);
  batch.label_at_L = at::tensor(label_at, at::kLong);
  batch.labels_L = at::tensor(labels, at::kLong);
  return batch;
}

inline std::vector<Row> ReadRows(const Tokenizer& tokenizer, const std::filesystem::path& file,
                                 size_t from, size_t to, size_t max_len) {
  std::ifstream in(file);
  std::vector<Row> rows;
  std::string line;
  for (size_t i = 0; i < to && std::getline(in, line); ++i) {
    if (i < from) continue;
    const auto json = nlohmann::json::parse(line);
    Row row;
    const bool text = json.contains("text");
    const std::string prompt =
        json[text ? "text" : "context"].get<std::string>() + (text ? "" : "\n");
    for (int32_t id : tokenizer.Encode(prompt, true)) row.ids.push_back(id);
    if (!text) {
      row.prompt = row.ids.size();
      for (int32_t id : tokenizer.Encode(json["completion"].get<std::string>(), false)) {
        row.ids.push_back(id);
      }
      row.ids.push_back(*tokenizer.eos_id());
    }
    if (row.ids.size() > max_len) row.ids.resize(max_len);
    rows.push_back(std::move(row));
  }
  return rows;
}

}  // namespace weft::testing
