// The whole pipeline on small tokenizers: what the golden encodings of real ones show is shown here
// without them.

#include "common/formats/tokenizer.h"

#include <thread>

#include "tests/unit/formats/tokenizer_fixture.h"

namespace weft {
namespace {

class TokenizerTest : public TokenizerFolderTest {};

const std::vector<std::pair<std::string, std::string>> kMerges = {
    {"h", "e"}, {"l", "l"}, {"he", "ll"}, {" ", "hell"}, {"hell", "o"}, {" hell", "o"}};

TEST_F(TokenizerTest, MergesGoByRankAndWordsKeepTheBlankBeforeThem) {
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("hello hello", false), (Ids{260, 261}));
  EXPECT_EQ(tokenizer->Encode("hell  hell", false), (Ids{258, ' ', 259}));
  EXPECT_EQ(tokenizer->Encode("", false), Ids{});
  EXPECT_EQ(tokenizer->Encode("hex", true), (Ids{256, 'x'}));
  EXPECT_EQ(tokenizer->vocab_size(), 262);
}

TEST_F(TokenizerTest, EveryTextOfBytesComesBack) {
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  for (const std::string text :
       {"hello", " hello\n\n", "größe 日本 😀", "a\tb\r\n", "'tis 1234'll"}) {
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text, false), false), text);
  }
}

TEST_F(TokenizerTest, InvalidUtf8IsReadAndWrittenAsReplacementCharacters) {
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("a\xFF", false), tokenizer->Encode("a\uFFFD", false));
  EXPECT_EQ(tokenizer->Decode(Ids{'a', 0xE6, 0x97}, false), "a\uFFFD");  // two thirds of 日
  EXPECT_EQ(tokenizer->Decode(Ids{0xE6, 0x97, 0xA5}, false), "日");
}

TEST_F(TokenizerTest, IdsOutsideTheVocabularyAreLeftOut) {
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Decode(Ids{'a', -1, 100000, 'b'}, false), "ab");
  EXPECT_EQ(tokenizer->IdToToken(-5), "");
  EXPECT_EQ(tokenizer->IdToToken(1 << 30), "");
  EXPECT_EQ(tokenizer->TokenToId("no such token"), std::nullopt);
}

TEST_F(TokenizerTest, ALongWordMergesAsAShortOneDoes) {
  auto tokenizer = Load(ByteLevelJson({{"a", "b"}, {"ab", "ab"}, {"b", "a"}, {"abab", "abab"}}));
  ASSERT_TRUE(tokenizer);
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "ab";
  EXPECT_EQ(tokenizer->Encode(text, false), Ids(250, 259));
  EXPECT_EQ(tokenizer->Encode("abababab", false), Ids{259});
  EXPECT_EQ(tokenizer->Encode("b" + text, false).front(), 'b');
}

TEST_F(TokenizerTest, SpecialTokensInTheTextAreTokens) {
  Json json = ByteLevelJson(kMerges);
  json["added_tokens"] = {AddedTokenJson(262, "<|end|>"), AddedTokenJson(263, "<|end|>x")};
  auto tokenizer = Load(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("he<|end|>he", false), (Ids{256, 262, 256}));
  EXPECT_EQ(tokenizer->Encode("<|end|>xhe", false), (Ids{263, 256})) << "the longest counts";
  EXPECT_EQ(tokenizer->Decode(Ids{256, 262, 'x'}, true), "hex");
  EXPECT_EQ(tokenizer->Decode(Ids{256, 262, 'x'}, false), "he<|end|>x");
  EXPECT_EQ(tokenizer->IdToToken(262), "<|end|>");
  EXPECT_EQ(tokenizer->vocab_size(), 264);
}

TEST_F(TokenizerTest, ThePostProcessorRunsOnlyWhenAsked) {
  Json json = ByteLevelJson(kMerges);
  json["added_tokens"] = {AddedTokenJson(262, "<s>"), AddedTokenJson(263, "</s>")};
  json["post_processor"] = {
      {"type", "RobertaProcessing"}, {"sep", {"</s>", 263}}, {"cls", {"<s>", 262}}};
  auto tokenizer = Load(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("he", true), (Ids{262, 256, 263}));
  EXPECT_EQ(tokenizer->Encode("he", false), Ids{256});
  EXPECT_EQ(tokenizer->Encode("", true), (Ids{262, 263}));
}

TEST_F(TokenizerTest, APostProcessorCannotAddIdsThatNoTokenHas) {
  Json json = ByteLevelJson(kMerges);
  json["post_processor"] = {{"type", "BertProcessing"}, {"sep", {"a", 'a'}}, {"cls", {"?", 5000}}};
  EXPECT_NE(LoadError(json).find("5000"), std::string::npos);
}

TEST_F(TokenizerTest, WordsThatAreTokensSkipTheMergesWhereTheFileSaysSo) {
  Json json = ByteLevelJson({{"a", "b"}});
  json["model"]["vocab"]["abc"] = 300;  // no merge leads here
  EXPECT_EQ(Load(json)->Encode("abc", false), (Ids{256, 'c'}));
  json["model"]["ignore_merges"] = true;
  EXPECT_EQ(Load(json)->Encode("abc", false), Ids{300});
}

TEST_F(TokenizerTest, AFileWithoutAModelTypeIsReadByItsMerges) {
  Json json = ByteLevelJson(kMerges);
  json["model"].erase("type");
  EXPECT_EQ(Load(json)->Encode("hello", false), Ids{260});
  json["model"].erase("merges");
  EXPECT_NE(LoadError(json).find("/model"), std::string::npos);
}

TEST_F(TokenizerTest, MergesMayBePairsOfStrings) {
  Json json = ByteLevelJson({{"a", "b"}});
  json["model"]["merges"] = Json::array({Json::array({"a", "b"})});
  EXPECT_EQ(Load(json)->Encode("ab", false), Ids{256});
}

TEST_F(TokenizerTest, EosAndBosComeFromTheConfigAndTheChatTemplateWithThem) {
  Json json = ByteLevelJson(kMerges);
  json["added_tokens"] = {AddedTokenJson(262, "<s>"), AddedTokenJson(263, "</s>")};
  Write("tokenizer_config.json", Json{{"bos_token", {{"content", "<s>"}}},
                                      {"eos_token", "</s>"},
                                      {"chat_template", "{{ messages }}"}});
  auto tokenizer = Load(json);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->bos_id(), 262);
  EXPECT_EQ(tokenizer->eos_id(), 263);
  EXPECT_EQ(tokenizer->eos_token(), "</s>");
  EXPECT_EQ(tokenizer->chat_template(), "{{ messages }}");
}

TEST_F(TokenizerTest, WithoutAConfigTheModelsOwnIdsServe) {
  Write("config.json", Json{{"eos_token_id", {261, 5}}, {"bos_token_id", -1}});
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->eos_id(), 261);
  EXPECT_EQ(tokenizer->bos_id(), std::nullopt);
  EXPECT_EQ(tokenizer->bos_token(), "");
  Write("generation_config.json", Json{{"eos_token_id", 260}});
  EXPECT_EQ(Load()->eos_id(), 260) << "generation_config.json goes before config.json";
}

TEST_F(TokenizerTest, AnEosTokenOfAnotherVocabularyIsAnError) {
  Write("tokenizer_config.json", Json{{"eos_token", "<|elsewhere|>"}});
  EXPECT_NE(LoadError(ByteLevelJson(kMerges)).find("<|elsewhere|>"), std::string::npos);
}

TEST_F(TokenizerTest, TokensOfTheConfigAreAddedToTheFiles) {
  Write("tokenizer_config.json",
        Json{{"added_tokens_decoder", {{"270", {{"content", "<new>"}, {"special", true}}}}},
             {"pad_token", "x"},
             {"chat_template", Json::array({{{"name", "tools"}, {"template", "no"}},
                                            {{"name", "default"}, {"template", "yes"}}})}});
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("a<new>", false), (Ids{'a', 270}));
  EXPECT_EQ(tokenizer->Decode(Ids{'a', 270, 'x', 'y'}, true), "ay") << "x has a role: special";
  EXPECT_EQ(tokenizer->chat_template(), "yes");
  Write("chat_template.jinja", std::string("file"));
  EXPECT_EQ(Load()->chat_template(), "file");
}

TEST_F(TokenizerTest, FingerprintsDifferWhereIdsWould) {
  const std::string first = Load(ByteLevelJson(kMerges))->fingerprint();
  EXPECT_EQ(first.size(), 64u);
  EXPECT_EQ(Load()->fingerprint(), first);
  Write("config.json", Json{{"eos_token_id", 1}});
  EXPECT_EQ(Load()->fingerprint(), first) << "a model's settings change no ids";
  Write("added_tokens.json", Json{{"<new>", 300}});
  EXPECT_NE(Load()->fingerprint(), first);
}

TEST_F(TokenizerTest, SeveralThreadsMayEncodeAtOnce) {
  auto tokenizer = Load(ByteLevelJson(kMerges));
  ASSERT_TRUE(tokenizer);
  const std::string text = "hello hello he'll 42 größe ";
  const Ids wanted = tokenizer->Encode(text, true);
  std::vector<int> equal(4, 0);
  {
    std::vector<std::jthread> threads;
    for (int& count : equal) {
      threads.emplace_back([&] {
        for (int i = 0; i < 200; ++i) {
          count +=
              tokenizer->Encode(text, true) == wanted && tokenizer->Decode(wanted, false) == text;
        }
      });
    }
  }
  EXPECT_EQ(equal, std::vector<int>(4, 200));
}

TEST_F(TokenizerTest, AFolderWithoutTokenizerFilesSaysSo) {
  auto loaded = Tokenizer::Load(folder_);
  ASSERT_FALSE(loaded.ok());
  EXPECT_EQ(loaded.status().code(), Code::kNotFound);
  EXPECT_NE(loaded.status().message().find(folder_.string()), std::string::npos);
}

TEST_F(TokenizerTest, TokenizerJsonWinsOverTokenizerModel) {
  Write("tokenizer.model", std::string("not a model at all"));
  EXPECT_TRUE(Load(ByteLevelJson(kMerges)));
  std::filesystem::remove(folder_ / "tokenizer.json");
  EXPECT_NE(LoadError().find("[tokenizer.model]"), std::string::npos);
}

}  // namespace
}  // namespace weft
