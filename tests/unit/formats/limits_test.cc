// The limits of common/base/limits.h that guard files: at the limit, one beyond, and that nothing
// of that size is read first. The large files are holes: they take no room on the disk.

#include "common/base/limits.h"

#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/str.h"
#include "common/formats/base_hash.h"
#include "common/formats/file_io.h"
#include "common/formats/jsonl_rows.h"
#include "common/formats/model_config.h"
#include "common/formats/safetensors.h"
#include "common/formats/safetensors_writer.h"
#include "common/formats/tokenizer.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using testing::TempFolder;

// A file of that size, all zeros.
fs::path Hole(const TempFolder& folder, const std::string& name, uint64_t bytes) {
  const fs::path path = folder.Write(name, "");
  fs::resize_file(path, bytes);
  return path;
}

std::string Nested(int levels) {
  const auto count = static_cast<size_t>(levels);
  return std::string(count, '[') + std::string(count, ']');
}

TEST(FileLimitsTest, ReadFileTakesAFileOfExactlyTheLimitAndNoLargerOne) {
  const TempFolder folder;
  EXPECT_EQ(ReadFile(Hole(folder, "a", 100), 100)->size(), 100u);
  const Status status = ReadFile(Hole(folder, "b", 101), 100).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("got 101 bytes, wanted at most 100"));
  EXPECT_EQ(ReadFile(Hole(folder, "c", 0), 0)->size(), 0u);
}

TEST(FileLimitsTest, JsonFilesBeyondTheLimitAreRefusedByTheirSize) {
  const TempFolder folder;
  Hole(folder, "tokenizer.json", limits::kJsonBytesMax + 1);
  const Status tokenizer = Tokenizer::Load(folder.path()).status();
  EXPECT_EQ(tokenizer.code(), Code::kResourceExhausted);
  EXPECT_THAT(tokenizer.message(), HasSubstr("wanted at most 268435456"));
  Hole(folder, "model.safetensors.index.json", limits::kJsonBytesMax + 1);
  EXPECT_EQ(SafetensorsFolder::Open(folder.path()).status().code(), Code::kResourceExhausted);
}

TEST(FileLimitsTest, ConfigurationsBeyondTheirSizeAreRefused) {
  const TempFolder folder;
  Hole(folder, "config.json", (16 << 20) + 1);
  EXPECT_EQ(ReadModelConfig(folder.path()).status().code(), Code::kResourceExhausted);
  EXPECT_EQ(ReadBaseDescription(Hole(folder, "base.json", (16 << 20) + 1)).status().code(),
            Code::kResourceExhausted);
}

TEST(FileLimitsTest, ASafetensorsHeaderAtItsLimitIsReadAndOneBeyondIsNot) {
  // The length stands first; the file is a hole of blanks' size behind it.
  const auto parse = [](uint64_t length) {
    std::string head;
    for (unsigned i = 0; i < 8; ++i) head.push_back(static_cast<char>(length >> (8 * i)));
    head += "{}";
    return ParseSafetensorsHeader(AsBytes(head), 8 + limits::kSafetensorsHeaderMax + 100, "f")
        .status();
  };
  EXPECT_THAT(parse(limits::kSafetensorsHeaderMax).message(), HasSubstr("truncated"))
      << "the limit itself is no reason to refuse";
  EXPECT_THAT(parse(limits::kSafetensorsHeaderMax + 1).message(),
              HasSubstr("wanted at most 104857600"));
}

TEST(FileLimitsTest, ALineOfExactlyTheLimitIsARow) {
  const TempFolder folder;
  const std::string frame = R"({"text":""})";
  std::string line =
      R"({"text":")" + std::string(limits::kJsonlLineBytesMax - frame.size(), 'x') + R"("})";
  ASSERT_EQ(line.size(), limits::kJsonlLineBytesMax);
  const auto rows = ReadRows(folder.Write("at.jsonl", line + "\n"));
  ASSERT_TRUE(rows.ok()) << rows.status();
  EXPECT_EQ((*rows)[0].completion.size(), limits::kJsonlLineBytesMax - frame.size());
  line.insert(9, "x");
  const Status status = ReadRows(folder.Write("beyond.jsonl", line + "\n")).status();
  EXPECT_EQ(status.code(), Code::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("beyond.jsonl:1: the line is longer than 16777216"));
}

TEST(FileLimitsTest, TokenIdsEndAtTheLimit) {
  const TempFolder folder;
  const auto load = [&](int64_t id) {
    folder.Write("tokenizer.json",
                 Str(R"({"model":{"type":"BPE","vocab":{"a":)", id, R"(},"merges":[]}})"));
    return Tokenizer::Load(folder.path());
  };
  const auto at = load(limits::kTokenIdMax);
  ASSERT_TRUE(at.ok()) << at.status();
  EXPECT_EQ((*at)->vocab_size(), limits::kTokenIdMax + 1);
  EXPECT_EQ((*at)->Encode("a", false), std::vector<int32_t>{limits::kTokenIdMax});
  EXPECT_EQ((*at)->IdToToken(limits::kTokenIdMax - 1), "") << "ids may have gaps";
  EXPECT_THAT(load(int64_t{limits::kTokenIdMax} + 1).status().message(),
              HasSubstr("wanted an integer in [0, 4194303]"));
}

// A list within a list within a list: a library that copies, prints or compares such a value
// recurses once a level, and a file of a few megabytes would end the process.
TEST(NestingLimitTest, DeepFilesAreRefusedBeforeAnythingRecursesOverThem) {
  const TempFolder folder;
  const std::string deep = Nested(400'000);
  const auto expect = [](const Status& status, const char* file) {
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << status;
    EXPECT_THAT(status.message(), HasSubstr(file));
    EXPECT_THAT(status.message(), HasSubstr(Str("deeper than ", limits::kJsonNestingMax)));
  };
  expect(ParseModelConfig(R"({"eos_token_id":)" + deep + "}", "config.json").status(),
         "config.json");
  expect(ParseModelConfig(R"({"model_type":"gpt2","n_embd":8,"n_head":2,"n_layer":1,)"
                          R"("n_positions":4,"vocab_size":9})",
                          "config.json", R"({"eos_token_id":)" + deep + "}")
             .status(),
         "generation_config.json");
  expect(ParseBaseDescription(R"({"sites":)" + deep + "}", "base.json").status(), "base.json");
  folder.Write("model.safetensors.index.json", R"({"weight_map":{"w":)" + deep + "}}");
  expect(SafetensorsFolder::Open(folder.path()).status(), "model.safetensors.index.json");
}

TEST(NestingLimitTest, RowsOfAnyDepthAreReadForTheFieldsTheyHave) {
  // Other fields of a row are looked at, never copied or printed.
  const auto row = ParseRow(R"({"text":"t","meta":)" + Nested(400'000) + "}", "f", 1);
  ASSERT_TRUE(row.ok()) << row.status();
  EXPECT_TRUE(row->fields.empty());
  EXPECT_FALSE(ParseRow(Nested(400'000), "f", 1).ok());
}

TEST(NestingLimitTest, WhatRealFilesHaveIsFarWithin) {
  const auto config = ParseModelConfig(
      R"({"model_type":"gpt2","n_embd":8,"n_head":2,"n_layer":1,"n_positions":4,"vocab_size":9,)"
      R"("task_specific_params":{"a":{"b":[{"c":[1,[2,[3]]]}]}}})",
      "config.json");
  EXPECT_TRUE(config.ok()) << config.status();
}

}  // namespace
}  // namespace weft
