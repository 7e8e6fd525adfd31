#include "common/formats/edit_rows.h"

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace weft {
namespace {

Result<EditRow> Parse(std::string_view line, EditTarget target = EditTarget::kNeeded) {
  return ParseEdit(line, "edits.jsonl", 7, target);
}

TEST(EditRowsTest, TheNewAnswerHasThreeNamesAndParaphrasesAreOptional) {
  const EditRow row = *Parse(R"({"prompt":"A is in","target_new":"Rome","subject":"A","n":3})");
  EXPECT_EQ(row.prompt, "A is in");
  EXPECT_EQ(row.target, "Rome");
  EXPECT_TRUE(row.paraphrases.empty());
  EXPECT_EQ(row.line, 7u);
  EXPECT_EQ(Parse(R"({"prompt":"p","target":"t"})")->target, "t");
  EXPECT_EQ(Parse(R"({"prompt":"p","completion":"c","target_new":null})")->target, "c");
  EXPECT_EQ(Parse(R"({"prompt":"p","target":"t","paraphrases":["q","r"]})")->paraphrases,
            (std::vector<std::string>{"q", "r"}));
  EXPECT_EQ(Parse(R"({"prompt":"p"})", EditTarget::kOptional)->target, "");
}

TEST(EditRowsTest, WhatCannotBeTaughtIsRefusedWithItsLine) {
  for (const char* line :
       {"", "[]", "5", "{", "{}", R"({"prompt":"","target":"t"})", R"({"prompt":" ","target":"t"})",
        R"({"prompt":3,"target":"t"})", R"({"target":"t"})", R"({"prompt":"p"})",
        R"({"prompt":"p","target":""})", R"({"prompt":"p","target_new":5,"target":"t"})",
        R"({"prompt":"p","target":"t","paraphrases":"q"})",
        R"({"prompt":"p","target":"t","paraphrases":["q",""]})",
        R"({"prompt":"p","target":"t","paraphrases":[1]})", "{\"prompt\":\"\xFF\"}"}) {
    const Status status = Parse(line).status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << line;
    EXPECT_NE(status.message().find("edits.jsonl:7: "), std::string::npos) << status;
  }
}

TEST(EditRowsTest, FilesGiveTheRowsAskedForAndSkipBlankLines) {
  const testing::TempFolder folder;
  const auto file = folder.Write("edits.jsonl",
                                 "\xEF\xBB\xBF{\"prompt\":\"a\",\"target\":\"1\"}\r\n\n"
                                 "{\"prompt\":\"b\",\"target\":\"2\"}\n"
                                 "{\"prompt\":\"c\"}\n");
  EXPECT_FALSE(ReadEdits(file, EditTarget::kNeeded).ok());  // c has no answer
  const std::vector<EditRow> two = *ReadEdits(file, EditTarget::kNeeded, 0, 2);
  ASSERT_EQ(two.size(), 2u);
  EXPECT_EQ(two[1].prompt, "b");
  EXPECT_EQ(two[1].line, 3u);
  const std::vector<EditRow> rest = *ReadEdits(file, EditTarget::kOptional, 2);
  ASSERT_EQ(rest.size(), 1u);
  EXPECT_EQ(rest[0].prompt, "c");
  EXPECT_TRUE(ReadEdits(file, EditTarget::kOptional, 9)->empty());
  EXPECT_EQ(ReadEdits(folder.Write("none.jsonl", "\n\n"), EditTarget::kNeeded).status().code(),
            Code::kInvalidArgument);
  EXPECT_EQ(ReadEdits(folder.path() / "absent", EditTarget::kNeeded).status().code(),
            Code::kNotFound);
}

}  // namespace
}  // namespace weft
