// Rows and conversations on random contents: what is written as JSON is what is trained on, and a
// conversation ends where its generation prompt goes on.

#include <algorithm>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "common/base/random.h"
#include "common/base/str.h"
#include "common/formats/chat_template.h"
#include "common/formats/jsonl_rows.h"
#include "tests/support/temp_folder.h"

namespace weft {
namespace {

using testing::TempFolder;
using Json = nlohmann::ordered_json;

std::string RandomText(RandomStream& random) {
  constexpr const char* kPieces[] = {"word", " ",    "\n", "\"", "\\",     "é",
                                     "日本", "🙂", "\t", "{",  "[INST]", "'"};
  std::string text;
  for (uint64_t n = random.Below(7); n > 0; --n) text += kPieces[random.Below(std::size(kPieces))];
  return text;
}

// ---- rows ----

TEST(RowPropertyTest, WhatIsWrittenInAnyShapeIsReadAsThatText) {
  RandomStream random(61);
  for (int turn = 0; turn < 1000; ++turn) {
    const std::string a = RandomText(random), b = RandomText(random), c = RandomText(random);
    const bool escaped = random.Below(2) == 0;
    const auto row = [&](const Json& json) {
      auto read = ParseRow(json.dump(-1, ' ', escaped), "f", 1);
      EXPECT_TRUE(read.ok()) << read.status();
      return *read;
    };
    const RowText prompt = TextOf(row({{"prompt", a}, {"completion", b}}));
    EXPECT_EQ(prompt.prompt, a + "\n");
    EXPECT_EQ(prompt.completion, b);
    const RowText alpaca = TextOf(row({{"instruction", a}, {"input", c}, {"output", b}}));
    EXPECT_EQ(alpaca.prompt, c.empty() ? a + "\n" : a + "\n" + c + "\n");
    EXPECT_EQ(TextOf(row({{"text", a}})).completion, a);
    const Row talk =
        row({{"messages",
              {{{"role", "user"}, {"content", a}}, {{"role", "assistant"}, {"content", b}}}}});
    ASSERT_EQ(talk.messages.size(), 2u);
    EXPECT_EQ(talk.messages[1].content, b);
    const auto asked = MessagesOf(row({{"context", a}, {"completion", b}}));
    ASSERT_TRUE(asked.has_value());
    EXPECT_EQ((*asked)[0].content, a) << "the prompt without the newline that training adds";
    EXPECT_EQ((*asked)[1].content, b);
  }
}

TEST(RowPropertyTest, EveryScalarFieldCanBePartitionedBy) {
  const auto row = ParseRow(
      R"({"z":"last","text":"t","n":3,"f":0.25,"yes":true,"no":false,"null":null,"list":[1],"big":18446744073709551615,"a":""})",
      "f", 1);
  ASSERT_TRUE(row.ok());
  EXPECT_EQ(row->Field("z"), "last");
  EXPECT_EQ(row->Field("n"), "3");
  EXPECT_EQ(row->Field("f"), "0.25");
  EXPECT_EQ(row->Field("yes"), "true");
  EXPECT_EQ(row->Field("no"), "false");
  EXPECT_EQ(row->Field("big"), "18446744073709551615");
  EXPECT_EQ(row->Field("a"), "") << "an empty one is there";
  EXPECT_EQ(row->Field("text"), "t") << "of its own shape too";
  for (const char* none : {"null", "list", "zz", ""})
    EXPECT_EQ(row->Field(none), std::nullopt) << none;
}

TEST(RowPropertyTest, RowsAreFoundWhateverEndsTheLinesAndWhateverLiesBetween) {
  const TempFolder folder;
  RandomStream random(62);
  for (int turn = 0; turn < 100; ++turn) {
    std::string file = random.Below(3) == 0 ? "\xEF\xBB\xBF" : "";
    std::vector<uint64_t> lines;
    uint64_t line = 1;
    const uint64_t rows = 1 + random.Below(6);
    for (uint64_t i = 0; i < rows; ++i) {
      for (uint64_t blank = random.Below(3); blank > 0; --blank, ++line) {
        constexpr const char* kBlanks[] = {"\n", "\r\n", " \t\n"};
        // Behind a byte-order mark the first line's blanks are its own.
        file += kBlanks[random.Below(3)];
      }
      lines.push_back(line++);
      file += Str(R"({"text":")", i, R"("})",
                  i + 1 == rows && random.Below(2) == 0 ? ""
                  : random.Below(2) == 0                ? "\n"
                                                        : "\r\n");
    }
    const auto read = ReadRows(folder.Write("rows.jsonl", file));
    ASSERT_TRUE(read.ok()) << read.status() << "\n" << file;
    ASSERT_EQ(read->size(), rows);
    for (uint64_t i = 0; i < rows; ++i) {
      EXPECT_EQ((*read)[i].completion, Str(i));
      EXPECT_EQ((*read)[i].line, lines[i]);
    }
    const uint64_t most = 1 + random.Below(rows);
    EXPECT_EQ(ReadRows(folder.path() / "rows.jsonl", most)->size(), most);
  }
}

TEST(RowPropertyTest, AnErrorNamesItsLineAndTheRowsBeforeItWereGiven) {
  const TempFolder folder;
  const auto file = folder.Write(
      "rows.jsonl", "{\"text\":\"a\"}\n\n{\"text\":\"b\"}\n{\"text\":7}\n{\"text\":\"c\"}\n");
  int taken = 0;
  const Status status = ForEachRow(file, [&](Row&&) { return ++taken > 0; });
  EXPECT_EQ(taken, 2);
  EXPECT_THAT(status.message(), ::testing::HasSubstr("rows.jsonl:4: field text: got number"));
  taken = 0;
  EXPECT_TRUE(ForEachRow(file, [&](Row&&) { return ++taken < 2; }).ok())
      << "who stops before it never sees it";
}

// ---- conversations ----

std::string Join(const std::vector<ChatSegment>& segments) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

std::vector<ChatMessage> RandomTalk(RandomStream& random, bool with_system) {
  std::vector<ChatMessage> talk;
  if (with_system) talk.push_back({"system", "S" + RandomText(random)});
  for (uint64_t turns = 1 + random.Below(3); turns > 0; --turns) {
    talk.push_back({"user", "Q" + RandomText(random) + "q"});
    talk.push_back({"assistant", "A" + RandomText(random) + "a"});
  }
  return talk;
}

// What a model is asked with is how the text it was trained on begins, up to its answer.
TEST(ChatPropertyTest, TheGenerationPromptIsThePrefixOfTheTrainedText) {
  RandomStream random(63);
  const ChatTokens tokens{"<s>", "</s>"};
  for (const char* name : {"chatml", "smollm2", "llama2", "llama3", "mistral"}) {
    const auto chat = ChatTemplate::FromName(name);
    ASSERT_TRUE(chat.ok());
    for (int turn = 0; turn < 100; ++turn) {
      const bool system = std::string_view(name) != "mistral" && random.Below(2) == 0;
      const std::vector<ChatMessage> talk = RandomTalk(random, system);
      const auto trained = chat->Render(talk, false, tokens);
      const auto asked = chat->Render({talk.begin(), talk.end() - 1}, true, tokens);
      ASSERT_TRUE(trained.ok() && asked.ok()) << name;
      const std::string whole = Join(*trained), prompt = Join(*asked);
      ASSERT_TRUE(whole.starts_with(prompt)) << name << "\n" << whole << "\n" << prompt;
      // Behind it the answer begins: the next trained segment does.
      size_t at = 0;
      bool answer_begins = false;
      for (const ChatSegment& segment : *trained) {
        answer_begins |= segment.assistant && at == prompt.size();
        at += segment.text.size();
      }
      ASSERT_TRUE(answer_begins) << name;
    }
  }
}

TEST(ChatPropertyTest, AnswersAndNothingElseOfTheConversationAreLearnt) {
  RandomStream random(64);
  for (const char* name : {"chatml", "smollm2", "llama2", "llama3", "mistral", "qwen3"}) {
    const auto chat = ChatTemplate::FromName(name);
    for (int turn = 0; turn < 60; ++turn) {
      const std::vector<ChatMessage> talk = RandomTalk(random, false);
      const auto rendered = chat->Render(talk, false, {"<s>", "</s>"});
      ASSERT_TRUE(rendered.ok()) << rendered.status();
      size_t answer = 1;
      for (const ChatSegment& segment : *rendered) {
        if (!segment.assistant) {
          EXPECT_EQ(segment.text.find(talk[answer].content), std::string::npos) << name;
          continue;
        }
        EXPECT_NE(segment.text.find(talk[answer].content), std::string::npos)
            << name << segment.text;
        EXPECT_GT(segment.text.size(), talk[answer].content.size())
            << "what ends it is learnt, too";
        answer = std::min(answer + 2, talk.size() - 1);
      }
      const auto learnt = std::count_if(rendered->begin(), rendered->end(),
                                        [](const auto& s) { return s.assistant; });
      EXPECT_EQ(static_cast<size_t>(learnt), talk.size() / 2) << name;
    }
  }
}

TEST(ChatPropertyTest, QwensThoughtsStandWithTheLastAnswerOnly) {
  const auto chat = ChatTemplate::FromName("qwen3");
  const std::vector<ChatMessage> talk = {
      {"user", "one"},
      {"assistant", "<think>\nfirst thought\n</think>\n\nfirst"},
      {"user", "two"},
      {"assistant", "<think>\nsecond thought\n</think>\n\nsecond"}};
  const std::string text = Join(*chat->Render(talk, false, {"", ""}));
  EXPECT_EQ(text.find("first thought"), std::string::npos);
  EXPECT_NE(text.find("<think>\nsecond thought\n</think>\n\nsecond<|im_end|>"), std::string::npos);
  EXPECT_NE(text.find("<|im_start|>assistant\nfirst<|im_end|>"), std::string::npos);
}

}  // namespace
}  // namespace weft
