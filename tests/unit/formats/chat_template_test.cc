#include "common/formats/chat_template.h"

#include <fstream>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include "tests/support/paths.h"

namespace weft {
namespace {

using Segments = std::vector<ChatSegment>;

std::string Join(const Segments& segments) {
  std::string text;
  for (const ChatSegment& segment : segments) text += segment.text;
  return text;
}

std::vector<ChatMessage> Messages(const nlohmann::json& json) {
  std::vector<ChatMessage> messages;
  for (const auto& message : json) messages.push_back({message.at("role"), message.at("content")});
  return messages;
}

class ChatGoldenTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    const auto path = testing::GoldenDir() / "chat" / (std::string(GetParam()) + ".json");
    std::ifstream in(path);
    ASSERT_TRUE(in) << path;
    golden_ = nlohmann::json::parse(in);
  }
  nlohmann::json golden_;
};

// tests/golden/chat holds what transformers' apply_chat_template made of each Jinja template.
TEST_P(ChatGoldenTest, ARecognisedTemplateRendersAsTransformersDoes) {
  auto chat = ChatTemplate::Detect(golden_.at("jinja").get<std::string>());
  ASSERT_TRUE(chat.ok()) << chat.status();
  EXPECT_EQ(chat->name(), golden_.at("name").get<std::string>());
  const ChatTokens tokens{golden_.at("bos"), golden_.at("eos")};
  int compared = 0;
  for (const auto& row : golden_.at("cases")) {
    auto rendered =
        chat->Render(Messages(row.at("messages")), row.at("add_generation_prompt"), tokens);
    EXPECT_EQ(rendered.ok(), row.at("text").is_string()) << row;
    if (!rendered.ok() || !row.at("text").is_string()) continue;
    EXPECT_EQ(Join(*rendered), row.at("text").get<std::string>());
    ++compared;
  }
  EXPECT_GE(compared, 8);
}

INSTANTIATE_TEST_SUITE_P(Families, ChatGoldenTest,
                         ::testing::Values("chatml", "chatml_bos", "chatml_default_system",
                                           "chatml_dotted", "smollm2", "qwen3", "llama2", "llama3",
                                           "llama31", "mistral", "mistral_no_blank",
                                           "mistral_blank_after"),
                         [](const auto& family) { return std::string(family.param); });

const std::vector<ChatMessage> kTalk = {
    {"user", "Hi"}, {"assistant", "Hello"}, {"user", "Bye"}, {"assistant", "See you"}};

Segments RenderNamed(std::string_view name, const std::vector<ChatMessage>& messages,
                     bool prompt = false) {
  auto chat = ChatTemplate::FromName(name);
  EXPECT_TRUE(chat.ok()) << chat.status();
  auto rendered = chat->Render(messages, prompt, {"<s>", "</s>"});
  EXPECT_TRUE(rendered.ok()) << rendered.status();
  return rendered.ok() ? *rendered : Segments();
}

TEST(ChatTemplateTest, OnlyAnswersAndWhatEndsThemAreLearnt) {
  EXPECT_EQ(RenderNamed("chatml", kTalk),
            (Segments{{"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n", false},
                      {"Hello<|im_end|>", true},
                      {"\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n", false},
                      {"See you<|im_end|>", true},
                      {"\n", false}}));
  EXPECT_EQ(RenderNamed("llama2", kTalk), (Segments{{"<s>[INST] Hi [/INST]", false},
                                                    {" Hello </s>", true},
                                                    {"<s>[INST] Bye [/INST]", false},
                                                    {" See you </s>", true}}));
  EXPECT_EQ(RenderNamed("mistral", kTalk), (Segments{{"<s>[INST] Hi [/INST]", false},
                                                     {" Hello</s>", true},
                                                     {"[INST] Bye [/INST]", false},
                                                     {" See you</s>", true}}));
  const Segments llama3 = RenderNamed("llama3", kTalk);
  ASSERT_EQ(llama3.size(), 4u);
  EXPECT_EQ(llama3[1], (ChatSegment{"Hello<|eot_id|>", true}));
  EXPECT_EQ(llama3[3], (ChatSegment{"See you<|eot_id|>", true}));
}

TEST(ChatTemplateTest, AGenerationPromptEndsWithTheHeaderOfTheAnswer) {
  const std::vector<ChatMessage> question = {{"user", "Hi"}};
  EXPECT_EQ(Join(RenderNamed("chatml", question, true)),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
  EXPECT_EQ(Join(RenderNamed("llama3", question, true)),
            "<s><|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\n");
  for (const char* name : {"llama2", "mistral"}) {
    EXPECT_EQ(Join(RenderNamed(name, question, true)), "<s>[INST] Hi [/INST]");
  }
}

TEST(ChatTemplateTest, SmolLm2SaysItsOwnSystemMessageUnlessThereIsOne) {
  EXPECT_TRUE(Join(RenderNamed("smollm2", kTalk))
                  .starts_with("<|im_start|>system\nYou are a helpful AI assistant named SmolLM"));
  EXPECT_TRUE(Join(RenderNamed("smollm2", {{"system", "Be brief."}, {"user", "Hi"}}))
                  .starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi"));
}

TEST(ChatTemplateTest, BytesThatAreNotUtf8BecomeReplacementCharacters) {
  EXPECT_EQ(Join(RenderNamed("llama2", {{"user", "a\xFF"}})), "<s>[INST] a\uFFFD [/INST]");
}

TEST(ChatTemplateTest, AnUnknownTemplateSaysHowToGiveOne) {
  for (const char* jinja :
       {"", "{{ messages }}", "{% for m in messages %}### {{ m.role }}{% endfor %}",
        "{{ '<|im_start|>' + something_else }}",                         // not ChatML's messages
        "{{ '[INST]' + message['content'] + '[/INST]' }}",               // other blanks
        "{{ '<|start_header_id|>' + role }}", "{{ '<<SYS>> [INST]' }}",  // fragments only
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' + '</think>' "
        "}}"}) {
    auto chat = ChatTemplate::Detect(jinja);
    ASSERT_FALSE(chat.ok()) << jinja;
    EXPECT_EQ(chat.status().code(), Code::kInvalidArgument);
    EXPECT_NE(chat.status().message().find("--chat"), std::string::npos) << chat.status();
    EXPECT_NE(chat.status().message().find("llama3"), std::string::npos) << chat.status();
  }
}

TEST(ChatTemplateTest, AnUnknownNameListsTheKnownOnes) {
  auto chat = ChatTemplate::FromName("vicuna");
  ASSERT_FALSE(chat.ok());
  EXPECT_NE(chat.status().message().find("\"vicuna\""), std::string::npos);
  EXPECT_NE(chat.status().message().find("smollm2"), std::string::npos);
}

TEST(ChatTemplateTest, RolesOutOfTurnAreRefusedByMessage) {
  const auto refusal = [](std::string_view name, const std::vector<ChatMessage>& messages) {
    auto rendered = ChatTemplate::FromName(name)->Render(messages, false, {"<s>", "</s>"});
    EXPECT_FALSE(rendered.ok()) << name;
    return rendered.status().message();
  };
  EXPECT_NE(refusal("llama2", {{"user", "a"}, {"user", "b"}}).find("message 1"), std::string::npos);
  EXPECT_NE(refusal("mistral", {{"assistant", "a"}}).find("message 0"), std::string::npos);
  EXPECT_NE(refusal("mistral", {{"system", "a"}}).find("no system role"), std::string::npos);
  EXPECT_NE(refusal("chatml", {{"user", "a"}, {"tool", "b"}}).find("\"tool\""), std::string::npos);
  EXPECT_NE(refusal("chatml", {}).find("no messages"), std::string::npos);
}

}  // namespace
}  // namespace weft
