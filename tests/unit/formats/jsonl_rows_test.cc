// Data rows: every shape, the text each stands for, and every way a line can be wrong.

#include "common/formats/jsonl_rows.h"

#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "common/base/limits.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;
using testing::TempFolder;

Row Good(const std::string& line) {
  const auto row = ParseRow(line, "d.jsonl", 7);
  EXPECT_TRUE(row.ok()) << row.status();
  return row.ok() ? row.value() : Row();
}

std::string Error(const std::string& line) {
  const auto row = ParseRow(line, "d.jsonl", 7);
  EXPECT_FALSE(row.ok()) << line;
  EXPECT_EQ(row.status().code(), Code::kInvalidArgument);
  EXPECT_THAT(row.status().message(), HasSubstr("[data] d.jsonl:7: "));
  return row.status().message();
}

void ExpectText(const std::string& line, const std::string& prompt, const std::string& completion) {
  const RowText text = TextOf(Good(line));
  EXPECT_EQ(text.prompt, prompt) << line;
  EXPECT_EQ(text.completion, completion) << line;
}

TEST(JsonlRowsTest, EachShapeStandsForItsText) {
  ExpectText(R"({"prompt":"p","completion":"c"})", "p\n", "c");
  ExpectText(R"({"context":"x","completion":"c"})", "x\n", "c");
  ExpectText(R"({"instruction":"i","input":"n","output":"o"})", "i\nn\n", "o");
  ExpectText(R"({"instruction":"i","input":"","output":"o"})", "i\n", "o");
  ExpectText(R"({"instruction":"i","input":null,"output":"o"})", "i\n", "o");
  ExpectText(R"({"instruction":"i","output":"o"})", "i\n", "o");
  ExpectText(R"({"text":"t"})", "", "t");
  ExpectText("{\"prompt\":\"\",\"completion\":\"\\u00fc\\n\"}", "\n", "ü\n");
}

TEST(JsonlRowsTest, AMultipleChoiceRowStandsForItsRightAnswer) {
  const Row by_number = Good(R"({"prompt":"p","choices":["a","b"],"answer":1})");
  EXPECT_EQ(by_number.kind, RowKind::kPrompt);
  EXPECT_THAT(by_number.choices, ElementsAre("a", "b"));
  ExpectText(R"({"prompt":"p","choices":["a","b"],"answer":1})", "p\n", "b");
  ExpectText(R"({"prompt":"p","choices":["a","b"],"answer":"a"})", "p\n", "a");
  ExpectText(R"({"input":"i","output":"o"})", "i\n", "o");
  ExpectText(R"({"input":"i","output":"o","text":"t"})", "", "t");
  for (const char* answer : {"2", "-1", "1.0", "\"c\"", "true"}) {
    EXPECT_THAT(Error(std::string(R"({"prompt":"p","choices":["a","b"],"answer":)") + answer + "}"),
                HasSubstr("field answer: wanted one of the 2 choices"));
  }
  for (const char* choices : {R"(["a"])", R"(["a",1])", R"("ab")", R"({"a":"b"})"}) {
    EXPECT_THAT(Error(std::string(R"({"prompt":"p","answer":0,"choices":)") + choices + "}"),
                HasSubstr("field choices: wanted a list of 2 to 1024 strings"));
  }
}

TEST(JsonlRowsTest, TheFirstShapeWhoseFieldsAreThereDecides) {
  EXPECT_EQ(Good(R"({"text":"t","prompt":"p","completion":"c"})").kind, RowKind::kPrompt);
  EXPECT_EQ(Good(R"({"text":"t","prompt":"p"})").kind, RowKind::kText);
  EXPECT_EQ(Good(R"({"instruction":"i","output":"o","context":"x"})").kind, RowKind::kAlpaca);
  EXPECT_EQ(Good(R"({"text":"t","messages":[{"role":"user","content":"c"}]})").kind,
            RowKind::kMessages);
}

TEST(JsonlRowsTest, MessagesKeepRolesAndOrder) {
  const Row row =
      Good(R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u","x":1}]})");
  ASSERT_EQ(row.messages.size(), 2u);
  EXPECT_EQ(row.messages[0].role, "system");
  EXPECT_EQ(row.messages[1].content, "u");
  EXPECT_EQ(MessagesOf(row)->size(), 2u);
}

TEST(JsonlRowsTest, AskedForAChatAPromptBecomesAQuestion) {
  const auto messages = MessagesOf(Good(R"({"instruction":"i","input":"n","output":"o"})"));
  ASSERT_TRUE(messages.has_value());
  ASSERT_EQ(messages->size(), 2u);
  EXPECT_EQ((*messages)[0].role, "user");
  EXPECT_EQ((*messages)[0].content, "i\nn");
  EXPECT_EQ((*messages)[1].role, "assistant");
  EXPECT_EQ((*messages)[1].content, "o");
  EXPECT_FALSE(MessagesOf(Good(R"({"text":"t"})")).has_value());
}

TEST(JsonlRowsTest, OtherFieldsAreThereToPartitionBy) {
  const Row row =
      Good(R"({"text":"t","label":1,"client":"c","share":0.5,"on":true,"list":[1],"none":null})");
  EXPECT_THAT(row.fields, ElementsAre(Pair("client", "c"), Pair("label", "1"), Pair("on", "true"),
                                      Pair("share", "0.5")));
  EXPECT_EQ(row.Field("label"), "1");
  EXPECT_EQ(row.Field("text"), "t");
  EXPECT_EQ(row.Field("completion"), std::nullopt);
  EXPECT_EQ(row.Field("list"), std::nullopt);
  const Row alpaca = Good(R"({"instruction":"i","output":"o","answer":"a"})");
  EXPECT_EQ(alpaca.Field("instruction"), "i");
  EXPECT_EQ(alpaca.Field("output"), "o");
  EXPECT_EQ(alpaca.Field("answer"), "a");
  EXPECT_EQ(alpaca.Field("prompt"), std::nullopt);
}

TEST(JsonlRowsTest, AWrongLineIsNamedWithWhatItHasAndWhatIsWanted) {
  EXPECT_THAT(Error("{\"text\":"), HasSubstr("is not JSON"));
  EXPECT_THAT(Error("hello"), HasSubstr("is not JSON"));
  EXPECT_THAT(Error("{\"text\":\"\xFF\"}"), HasSubstr("is not JSON in UTF-8"));
  EXPECT_THAT(Error("[1]"), HasSubstr("got array, wanted an object"));
  EXPECT_THAT(Error("{}"), HasSubstr("got no fields; wanted prompt and completion"));
  EXPECT_THAT(Error(R"({"question":"q","answer":"a"})"),
              HasSubstr("got answer, question; wanted prompt and completion, context"));
  EXPECT_THAT(Error(R"({"prompt":"p"})"), HasSubstr("got prompt; wanted"));
  EXPECT_THAT(Error(R"({"text":7})"), HasSubstr("field text: got number, wanted a string"));
  EXPECT_THAT(Error(R"({"instruction":"i","input":[],"output":"o"})"),
              HasSubstr("field input: got array"));
  EXPECT_THAT(Error(R"({"messages":[]})"), HasSubstr("field messages: got 0 messages"));
  EXPECT_THAT(Error(R"({"messages":"hi"})"), HasSubstr("field messages: got string"));
  EXPECT_THAT(Error(R"({"messages":[{"role":"user"}]})"),
              HasSubstr("messages[0]: got role, wanted role and content"));
  EXPECT_THAT(Error(R"({"messages":[{"role":"user","content":[1]}]})"),
              HasSubstr("messages[0]: field content: got array"));
  EXPECT_THAT(Error(std::string(100000, '[')), HasSubstr("is not JSON"));
}

TEST(JsonlRowsTest, BlankLinesByteOrderMarksAndCarriageReturnsAreAccepted) {
  const TempFolder folder;
  const auto path = folder.Write(
      "d.jsonl", "\xEF\xBB\xBF{\"text\":\"a\"}\r\n\r\n  \t\n{\"text\":\"b\"}\n\n{\"text\":\"c\"}");
  const auto rows = ReadRows(path);
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows.value().size(), 3u);
  EXPECT_EQ(rows.value()[0].completion, "a");
  EXPECT_EQ(rows.value()[1].line, 4u);
  EXPECT_EQ(rows.value()[2].line, 6u);
}

TEST(JsonlRowsTest, ReadingStopsWhereItIsToldTo) {
  const TempFolder folder;
  const auto path = folder.Write("d.jsonl", "{\"text\":\"a\"}\n{\"text\":\"b\"}\nno json\n");
  EXPECT_EQ(ReadRows(path, 2).value().size(), 2u);
  EXPECT_THAT(ReadRows(path, 3).status().message(), HasSubstr("d.jsonl:3: is not JSON"));
  std::string seen;
  ASSERT_EQ(ForEachRow(path,
                       [&seen](Row&& row) {
                         seen += row.completion;
                         return false;
                       }),
            OkStatus());
  EXPECT_EQ(seen, "a");
}

TEST(JsonlRowsTest, EmptyMissingAndOverlongFilesAreErrors) {
  const TempFolder folder;
  for (const char* empty : {"", "\n\n", "\xEF\xBB\xBF"}) {
    const auto rows = ReadRows(folder.Write("empty.jsonl", empty));
    EXPECT_THAT(rows.status().message(), HasSubstr("empty.jsonl: holds no rows"));
  }
  EXPECT_EQ(ReadRows(folder.path() / "no.jsonl").status().code(), Code::kNotFound);
  EXPECT_THAT(ReadRows(folder.path()).status().message(), HasSubstr("got a folder"));
  const auto path = folder.Write(
      "long.jsonl", "{\"text\":\"a\"}\n" + std::string(limits::kJsonlLineBytesMax + 1, 'x'));
  const auto rows = ReadRows(path);
  EXPECT_EQ(rows.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(rows.status().message(), HasSubstr("long.jsonl:2: the line is longer than"));
}

}  // namespace
}  // namespace weft
