// A data file: reading it as a file gives the rows that its lines give one by one, and every row
// can be turned into text or a conversation.

#include "common/formats/jsonl_rows.h"

#include "common/base/check.h"
#include "common/base/limits.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void CheckRow(const Row& row) {
  for (size_t i = 0; i < row.fields.size(); ++i) {
    WEFT_CHECK(i == 0 || row.fields[i - 1].first < row.fields[i].first, "fields are sorted");
    WEFT_CHECK(row.Field(row.fields[i].first).has_value(), row.fields[i].first);
  }
  if (row.kind == RowKind::kMessages) {
    WEFT_CHECK(!row.messages.empty());
  } else {
    const RowText text = TextOf(row);
    WEFT_CHECK(text.prompt.empty() == (row.kind == RowKind::kText));
    WEFT_CHECK(text.prompt.empty() || text.prompt.back() == '\n');
  }
  const auto talk = MessagesOf(row);
  WEFT_CHECK(talk.has_value() == (row.kind != RowKind::kText));
}

void Run(std::string_view input) {
  const MemoryFile file(input);
  std::vector<Row> read;
  const Status status = ForEachRow(file.path(), [&](Row&& row) {
    read.push_back(std::move(row));
    return true;
  });
  WEFT_CHECK(!status.ok() || !read.empty(), "a file without rows is an error");
  for (const Row& row : read) CheckRow(row);
  // The same by lines.
  size_t taken = 0;
  uint64_t number = 0;
  while (!input.empty() && taken < read.size()) {
    const size_t end = std::min(input.find('\n'), input.size());
    std::string_view line = input.substr(0, end);
    input.remove_prefix(std::min(end + 1, input.size()));
    if (++number == 1 && line.starts_with("\xEF\xBB\xBF")) line.remove_prefix(3);
    const Result<Row> row = ParseRow(line, "x", number);
    if (read[taken].line != number) continue;  // a blank line
    WEFT_CHECK(row.ok() && row->kind == read[taken].kind && row->fields == read[taken].fields);
    ++taken;
  }
  WEFT_CHECK(taken == read.size(), taken, " of ", read.size());
}

Seeds MakeSeeds() {
  return {"{\"prompt\":\"a\",\"completion\":\"b\",\"label\":3}\n\n{\"text\":\"t\",\"ok\":true}\r\n",
          "\xEF\xBB\xBF{\"context\":\"c\",\"completion\":\"\",\"x\":1.5e-3}",
          "{\"instruction\":\"i\",\"input\":\"n\",\"output\":\"o\",\"prompt\":null}\n",
          "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"}],\"text\":\"t\"}\n \t\n",
          "{\"text\":5}\n",
          "[1]\n",
          "{\"client\":\"x\"}\n"};
}

}  // namespace

Target JsonlRows() {
  return {
      "jsonl_rows", Run, MakeSeeds, {"\"messages\"", "\"completion\"", "\"text\"", "null", "\n"}};
}

}  // namespace weft::fuzz
