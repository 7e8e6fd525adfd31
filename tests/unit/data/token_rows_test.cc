// Against the example model's own tokenizer (examples/tiny).

#include "common/data/token_rows.h"

#include <filesystem>

#include <gtest/gtest.h>

#include "tests/support/temp_folder.h"

namespace weft {
namespace {

namespace fs = std::filesystem;

class TokenRowsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    Result<std::unique_ptr<Tokenizer>> loaded =
        Tokenizer::Load(fs::path(WEFT_SOURCE_DIR) / "examples" / "tiny" / "model");
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = std::move(loaded).value();
    ASSERT_TRUE(tokenizer_->eos_id().has_value());
    options_.max_len = 1000;
  }

  static Row Parse(const std::string& line) {
    Result<Row> row = ParseRow(line, "test.jsonl", 1);
    EXPECT_TRUE(row.ok()) << row.status();
    return *row;
  }

  Result<TokenRows> Tokens(const std::vector<std::string>& lines) {
    std::vector<Row> rows;
    for (const std::string& line : lines) rows.push_back(Parse(line));
    return TokenizeRows(rows, *tokenizer_, options_);
  }

  std::unique_ptr<Tokenizer> tokenizer_;
  TokenizeOptions options_;
};

TEST_F(TokenRowsTest, PromptedRowsLearnTheCompletionAndItsEnd) {
  const Result<TokenRows> tokens = Tokens({R"({"prompt":"the ship","completion":"sails"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const TokenRow& row = tokens->rows[0];
  const std::vector<int32_t> prompt = tokenizer_->Encode("the ship\n", true);
  std::vector<int32_t> completion = tokenizer_->Encode("sails", false);
  completion.push_back(*tokenizer_->eos_id());
  ASSERT_EQ(row.ids.size(), prompt.size() + completion.size());
  for (size_t i = 0; i < row.ids.size(); ++i) {
    const bool in_prompt = i < prompt.size();
    EXPECT_EQ(row.ids[i], in_prompt ? prompt[i] : completion[i - prompt.size()]);
    EXPECT_EQ(row.labels[i], in_prompt ? kNoLabel : row.ids[i]);
  }
  EXPECT_EQ(tokens->summary.label_tokens, completion.size());
}

TEST_F(TokenRowsTest, AlpacaInputStandsOnALineOfItsOwn) {
  const Result<TokenRows> tokens = Tokens({R"({"instruction":"say","input":"ship","output":"x"})",
                                           R"({"prompt":"say\nship","completion":"x"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, tokens->rows[1].ids);
}

TEST_F(TokenRowsTest, TextRowsLearnAllButTheirFirstTokenAndEndOnce) {
  const Result<TokenRows> tokens = Tokens({R"({"text":"the ship sails"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const TokenRow& row = tokens->rows[0];
  EXPECT_EQ(row.labels.front(), kNoLabel);
  EXPECT_EQ(row.num_labels(), static_cast<int64_t>(row.ids.size()) - 1);
  EXPECT_EQ(row.ids.back(), *tokenizer_->eos_id());
  EXPECT_NE(row.ids[row.ids.size() - 2], *tokenizer_->eos_id());
}

TEST_F(TokenRowsTest, LongRowsAreCutOrDroppedAndCounted) {
  const std::string line = R"({"prompt":"a","completion":"the ship sails over the sea at night"})";
  options_.max_len = 6;
  Result<TokenRows> tokens = Tokens({line, R"({"prompt":"a","completion":"b"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids.size(), 6u);
  EXPECT_EQ(tokens->summary.rows_cut, 1u);
  EXPECT_EQ(tokens->summary.rows_used, 2u);
  options_.long_rows = "drop";
  tokens = Tokens({line, R"({"prompt":"a","completion":"b"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->summary.rows_dropped, 1u);
  EXPECT_EQ(tokens->rows.size(), 1u);
  EXPECT_NE(tokens->summary.Text(6).find("1 rows dropped"), std::string::npos);
}

TEST_F(TokenRowsTest, ARowOfExactlyTheLengthIsWhole) {
  const std::string line = R"({"prompt":"a","completion":"the ship sails"})";
  const size_t length = Tokens({line})->rows[0].ids.size();
  options_.max_len = static_cast<int64_t>(length);
  for (const char* rule : {"cut", "drop"}) {
    options_.long_rows = rule;
    const Result<TokenRows> tokens = Tokens({line});
    ASSERT_TRUE(tokens.ok()) << rule << tokens.status();
    EXPECT_EQ(tokens->rows[0].ids.size(), length);
    EXPECT_EQ(tokens->summary.rows_cut + tokens->summary.rows_dropped, 0u) << rule;
  }
}

TEST_F(TokenRowsTest, ATextThatHasItsEndAlreadyGetsNoSecondOne) {
  const Result<TokenRows> plain = Tokens({R"({"text":"the ship"})"});
  const Result<TokenRows> ended =
      Tokens({R"({"text":"the ship)" + tokenizer_->eos_token() + "\"}"});
  ASSERT_TRUE(ended.ok()) << ended.status();
  EXPECT_EQ(ended->rows[0].ids, plain->rows[0].ids);
}

TEST_F(TokenRowsTest, RowsWhoseLabelsAreAllCutAwayAreLeftOutAndCounted) {
  options_.max_len = 3;
  const std::vector<std::string> lines = {
      R"({"prompt":"the ship sails over the sea at night","completion":"x"})",
      R"({"text":"the ship sails"})"};
  const Result<TokenRows> tokens = Tokens(lines);
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->summary.rows_without_label, 1u);
  EXPECT_EQ(tokens->rows.size(), 1u);
  const Result<TokenRows> none = Tokens({lines[0]});
  ASSERT_FALSE(none.ok());
  EXPECT_NE(none.status().message().find("no row is left to learn from"), std::string::npos);
}

TEST_F(TokenRowsTest, ConversationsLearnWhatTheAssistantSays) {
  options_.chat_template = *ChatTemplate::FromName("chatml");
  const Result<TokenRows> tokens = Tokens(
      {R"({"messages":[{"role":"user","content":"where?"},{"role":"assistant","content":"here"},)"
       R"({"role":"user","content":"when?"},{"role":"assistant","content":"now"}]})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  const TokenRow& row = tokens->rows[0];
  const Row parsed = Parse(
      R"({"messages":[{"role":"user","content":"where?"},{"role":"assistant","content":"here"},)"
      R"({"role":"user","content":"when?"},{"role":"assistant","content":"now"}]})");
  const auto segments = *options_.chat_template->Render(
      parsed.messages, false, {.bos = tokenizer_->bos_token(), .eos = tokenizer_->eos_token()});
  std::string text;
  std::string learnt;
  for (const ChatSegment& segment : segments) {
    text += segment.text;
    if (segment.assistant) learnt += segment.text;
  }
  EXPECT_EQ(row.ids, tokenizer_->Encode(text, false));
  std::vector<int32_t> labelled;
  for (const int32_t label : row.labels) {
    if (label != kNoLabel) labelled.push_back(label);
  }
  EXPECT_EQ(tokenizer_->Decode(labelled, false), learnt);
}

TEST_F(TokenRowsTest, ChatTurnsPromptsIntoConversations) {
  options_.chat_template = *ChatTemplate::FromName("chatml");
  options_.chat = true;
  const Result<TokenRows> tokens = Tokens({R"({"prompt":"where?","completion":"here"})",
                                           R"({"messages":[{"role":"user","content":"where?"},)"
                                           R"({"role":"assistant","content":"here"}]})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, tokens->rows[1].ids);
  EXPECT_EQ(tokens->rows[0].labels, tokens->rows[1].labels);
  EXPECT_FALSE(Tokens({R"({"text":"no conversation"})"}).ok());
}

TEST_F(TokenRowsTest, ConversationWithoutATemplateSaysHowToNameOne) {
  const Result<TokenRows> tokens = Tokens(
      {R"({"messages":[{"role":"user","content":"x"},{"role":"assistant","content":"y"}]})"});
  ASSERT_FALSE(tokens.ok());
  EXPECT_NE(tokens.status().message().find("--chat-template"), std::string::npos);
}

TEST_F(TokenRowsTest, WrongSettingsAreRefused) {
  options_.long_rows = "squeeze";
  EXPECT_FALSE(Tokens({R"({"text":"a b"})"}).ok());
  options_.long_rows = "cut";
  options_.max_len = 1;
  EXPECT_FALSE(Tokens({R"({"text":"a b"})"}).ok());
}

class FixedBatchesTest : public ::testing::Test {
 protected:
  Result<std::vector<FixedBatch>> Read(const std::string& text) {
    return ReadFixedBatches(folder_.Write("weft-batches.jsonl", text), 10);
  }

  testing::TempFolder folder_;
};

TEST_F(FixedBatchesTest, SplitsIdsAndLabelsAreRead) {
  const auto batches = Read(
      "{\"split\":\"train\",\"input_ids\":[[1,2],[3,4,5]],\"labels\":[[-100,2],[3,4,5]]}\n\n"
      "{\"split\":\"eval\",\"input_ids\":[[1]],\"labels\":[[1]]}\n");
  ASSERT_TRUE(batches.ok()) << batches.status();
  ASSERT_EQ(batches->size(), 2u);
  EXPECT_EQ((*batches)[0].rows[1].ids, (std::vector<int32_t>{3, 4, 5}));
  EXPECT_EQ((*batches)[0].rows[0].labels[0], kNoLabel);
  EXPECT_EQ((*batches)[1].split, "eval");
}

TEST_F(FixedBatchesTest, WrongLinesAreNamed) {
  for (const char* line :
       {"not json", "{}", "{\"input_ids\":[[1]],\"labels\":[]}",
        "{\"input_ids\":[[1,2]],\"labels\":[[1]]}", "{\"input_ids\":[[10]],\"labels\":[[1]]}",
        "{\"input_ids\":[[1]],\"labels\":[[-1]]}", "{\"input_ids\":[[1.5]],\"labels\":[[1]]}",
        "{\"input_ids\":[[]],\"labels\":[[]]}",
        "{\"split\":\"test\",\"input_ids\":[[1]],\"labels\":[[1]]}"}) {
    const auto batches =
        Read(std::string("{\"input_ids\":[[1]],\"labels\":[[1]]}\n") + line + "\n");
    ASSERT_FALSE(batches.ok()) << line;
    EXPECT_NE(batches.status().message().find("weft-batches.jsonl:2: "), std::string::npos)
        << batches.status();
  }
  EXPECT_FALSE(Read("\n").ok());
}

// A tokenizer in BERT's layout: one letter a token, [CLS] and [SEP] around texts.
class ClassRowsTest : public TokenRowsTest {
 protected:
  void SetUp() override {
    std::string vocab = R"("[UNK]": 0, "[CLS]": 1, "[SEP]": 2)";
    for (char letter = 'a'; letter <= 'f'; ++letter) {
      vocab += std::string(", \"") + letter + "\": " + std::to_string(letter - 'a' + 3);
    }
    folder_.Write("tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {)" + vocab + R"(}},
       "pre_tokenizer": {"type": "BertPreTokenizer"},
       "post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 1], "sep": ["[SEP]", 2]}})");
    Result<std::unique_ptr<Tokenizer>> loaded = Tokenizer::Load(folder_.path());
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    tokenizer_ = std::move(loaded).value();
    options_.max_len = 100;
    options_.labels = {"bad", "good"};
  }

  testing::TempFolder folder_;
};

using Ids = std::vector<int32_t>;

TEST_F(ClassRowsTest, ATextHasItsSpecialTokensAndItsClassAndNeedsNoEos) {
  const Result<TokenRows> tokens =
      Tokens({R"({"text":"a b","label":"good"})", R"({"text":"c","label":0})",
              R"({"text":"","label":"1"})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, (Ids{1, 3, 4, 2}));
  EXPECT_TRUE(tokens->rows[0].labels.empty());
  EXPECT_TRUE(tokens->rows[0].types.empty());
  EXPECT_EQ(tokens->rows[0].row_class, 1);
  EXPECT_EQ(tokens->rows[0].num_labels(), 1);
  EXPECT_EQ(tokens->rows[1].row_class, 0) << "a number stands for the name of that number";
  EXPECT_EQ(tokens->rows[2].ids, (Ids{1, 2}));
  EXPECT_EQ(tokens->summary.label_tokens, 3u);
}

TEST_F(ClassRowsTest, ALongTextLosesItsEndAndKeepsWhatStandsBehindIt) {
  options_.max_len = 5;
  const std::string line = R"({"text":"a b c d e f","label":1})";
  Result<TokenRows> tokens = Tokens({line});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, (Ids{1, 3, 4, 5, 2}));
  EXPECT_EQ(tokens->summary.rows_cut, 1u);
  options_.long_rows = "drop";
  tokens = Tokens({line, R"({"text":"a","label":1})"});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->summary.rows_dropped, 1u);
  EXPECT_EQ(tokens->summary.rows_cut, 0u);
}

TEST_F(ClassRowsTest, PairsAreToldApartAndTheLongerIsCutFirst) {
  const std::string line = R"({"text":"a b c d","text_pair":"e f","label":1})";
  Result<TokenRows> tokens = Tokens({line});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, (Ids{1, 3, 4, 5, 6, 2, 7, 8, 2}));
  EXPECT_EQ(tokens->rows[0].types, (Ids{0, 0, 0, 0, 0, 0, 1, 1, 1}));
  options_.max_len = 6;
  tokens = Tokens({line});
  ASSERT_TRUE(tokens.ok()) << tokens.status();
  EXPECT_EQ(tokens->rows[0].ids, (Ids{1, 3, 4, 2, 7, 2}));
  EXPECT_EQ(tokens->rows[0].types, (Ids{0, 0, 0, 0, 1, 1}));
  EXPECT_EQ(tokens->summary.rows_cut, 1u);
}

TEST_F(ClassRowsTest, WhatHasNoKnownClassIsNamed) {
  const auto error = [&](const std::string& line) {
    const std::vector<Row> rows = {Parse(line)};
    const Status checked = CheckRows(rows, *tokenizer_, options_);
    EXPECT_EQ(checked.code(), Code::kInvalidArgument);
    EXPECT_EQ(Tokens({line}).status().message(), checked.message());
    return checked.message();
  };
  EXPECT_NE(error(R"({"text":"a","label":"ugly"})").find("line 1: label \"ugly\" is none of the 2"),
            std::string::npos);
  EXPECT_NE(error(R"({"text":"a","label":2})").find("\"2\""), std::string::npos);
  EXPECT_NE(error(R"({"text":"a"})").find("no class to learn"), std::string::npos);
  EXPECT_NE(error(R"({"prompt":"a","completion":"b","label":1})").find("no class"),
            std::string::npos);
}

TEST_F(ClassRowsTest, ClassesAreCountedOrNamedByTheRows) {
  const auto labels = [](const std::vector<std::string>& lines) {
    std::vector<Row> rows;
    for (const std::string& line : lines) rows.push_back(Parse(line));
    return LabelsOf(rows);
  };
  const auto numbers = labels({R"({"text":"a","label":0})", R"({"text":"a","label":"3"})"});
  ASSERT_TRUE(numbers.ok()) << numbers.status();
  EXPECT_EQ(*numbers, (std::vector<std::string>{"0", "1", "2", "3"}));
  const auto names = labels({R"({"text":"a","label":"no"})", R"({"text":"a","label":"maybe"})",
                             R"({"text":"a","label":"no"})"});
  ASSERT_TRUE(names.ok()) << names.status();
  EXPECT_EQ(*names, (std::vector<std::string>{"maybe", "no"}));
  EXPECT_NE(labels({R"({"text":"a","label":"x"})"}).status().message().find("all the same"),
            std::string::npos);
  EXPECT_NE(labels({R"({"text":"a","label":99999})"}).status().message().find("more than 1024"),
            std::string::npos);
}

}  // namespace
}  // namespace weft
