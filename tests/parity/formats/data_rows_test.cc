// Every real data set at hand: those in a shape we read are read whole, the others are refused with
// the fields they have.

#include <filesystem>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/formats/jsonl_rows.h"
#include "tests/support/paths.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

struct Expected {
  const char* file;
  RowKind kind;
  size_t rows;
};

// Rows as the folder's README counts them.
constexpr Expected kReadable[] = {
    {"e2e-nlg/valid.jsonl", RowKind::kContext, 4672},
    {"e2e-nlg/test.jsonl", RowKind::kContext, 3565},
    {"gpteacher/roleplay.jsonl", RowKind::kAlpaca, 1731},
    {"mmlu-val/val.jsonl", RowKind::kInput, 1149},
    {"gpteacher/codegen.jsonl", RowKind::kAlpaca, 4082},
    {"gpteacher/toolformer.jsonl", RowKind::kAlpaca, 2157},
    {"identity/train.jsonl", RowKind::kAlpaca, 91},
    {"alpaca-demo-nc/train.jsonl", RowKind::kAlpaca, 900},
    {"commonsense/boolq/train.jsonl", RowKind::kAlpaca, 9427},
    {"arithmetic/SVAMP/test.jsonl", RowKind::kAlpaca, 750},
    {"shakespeare/train.jsonl", RowKind::kText, 5771},
    {"presidents/train.jsonl", RowKind::kText, 1757},
    {"product-reviews/train.jsonl", RowKind::kText, 3408},
    {"banking77/train.jsonl", RowKind::kText, 10003},
    {"clinc150/train.jsonl", RowKind::kText, 15000},
    {"oasst1-sample/train.jsonl", RowKind::kText, 858},
    {"tinystories-sample/train.jsonl", RowKind::kText, 140},
    {"wiki-demo/train.jsonl", RowKind::kText, 27},
};

TEST(DataRowsParityTest, ReadableSetsGiveAllTheirRows) {
  WEFT_NEEDS_SHARED();
  for (const Expected& expected : kReadable) {
    const auto rows = ReadRows(testing::SharedDir() / "data" / expected.file);
    ASSERT_TRUE(rows.ok()) << rows.status();
    EXPECT_EQ(rows.value().size(), expected.rows) << expected.file;
    for (const Row& row : rows.value()) {
      ASSERT_EQ(row.kind, expected.kind) << expected.file << ":" << row.line;
      ASSERT_FALSE(TextOf(row).completion.empty()) << expected.file << ":" << row.line;
    }
  }
}

TEST(DataRowsParityTest, NaturalPartitionsAreFound) {
  WEFT_NEEDS_SHARED();
  for (const char* file : {"shakespeare/train.jsonl", "product-reviews/train.jsonl",
                           "presidents/train.jsonl", "gpteacher/codegen.jsonl"}) {
    const auto rows = ReadRows(testing::SharedDir() / "data" / file);
    ASSERT_TRUE(rows.ok()) << rows.status();
    for (const Row& row : rows.value()) ASSERT_TRUE(row.Field("client").has_value()) << file;
  }
}

TEST(DataRowsParityTest, OtherShapesAreRefusedAtTheirFirstLine) {
  WEFT_NEEDS_SHARED();
  const std::vector<std::pair<std::string, std::string>> others = {
      {"gsm8k/test.jsonl", "got answer, question; wanted"},
      {"dart/dev.jsonl", "got annotations, tripleset; wanted"},
      {"fedllm-bench-test/wildchat.jsonl", "got instruction, language; wanted"},
      {"known-facts/facts.jsonl", "prompt, relation_id, subject, target_new, template; wanted"},
      {"sharegpt-toolcall/train.jsonl", "got conversations, tools; wanted"},
      {"webnlg2017-nc/dev.jsonl", "got category, texts, triples; wanted"}};
  for (const auto& [file, message] : others) {
    const auto rows = ReadRows(testing::SharedDir() / "data" / file);
    ASSERT_FALSE(rows.ok()) << file;
    EXPECT_THAT(rows.status().message(), HasSubstr(file + ":1: "));
    EXPECT_THAT(rows.status().message(), HasSubstr(message));
  }
}

// No file of the folder, known to this test or not, does anything but give rows or a plain error.
TEST(DataRowsParityTest, EveryFileGivesRowsOrAnErrorWithItsLine) {
  WEFT_NEEDS_SHARED();
  size_t read = 0;
  size_t refused = 0;
  for (const auto& entry : fs::recursive_directory_iterator(testing::SharedDir() / "data")) {
    if (entry.path().extension() != ".jsonl") continue;
    const auto rows = ReadRows(entry.path(), 1000);
    if (rows.ok()) {
      ++read;
      continue;
    }
    ++refused;
    EXPECT_THAT(rows.status().message(), HasSubstr(entry.path().string() + ":1: got "));
  }
  EXPECT_GE(read, 30u);
  EXPECT_GE(refused, 7u);
}

}  // namespace
}  // namespace weft
