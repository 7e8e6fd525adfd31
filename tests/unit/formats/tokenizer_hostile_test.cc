// Files that a stranger wrote: each is an error that says where, none ends the process.

#include "common/base/random.h"
#include "tests/unit/formats/tokenizer_fixture.h"

namespace weft {
namespace {

class HostileTokenizerTest : public TokenizerFolderTest {
 protected:
  Json good_ = ByteLevelJson({{"h", "e"}, {"he", "l"}});
};

TEST_F(HostileTokenizerTest, WhatIsNoJsonIsRefused) {
  for (const std::string text : {"", "{", "[1,2", "nul", "{\"model\":\"\xFF\"}", "\x00\x01"}) {
    Write("tokenizer.json", text);
    EXPECT_NE(LoadError().find("[tokenizer.json] is not JSON"), std::string::npos) << text;
  }
}

TEST_F(HostileTokenizerTest, DeepNestingCostsNoStack) {
  constexpr size_t kDepth = 500'000;
  Write("tokenizer.json", std::string(kDepth, '[') + std::string(kDepth, ']'));
  EXPECT_NE(LoadError().find("wanted object"), std::string::npos);
  Json nested = {{"type", "NFC"}};
  for (int i = 0; i < 40; ++i) {
    nested = {{"type", "Sequence"}, {"normalizers", Json::array({nested})}};
  }
  good_["normalizer"] = nested;
  EXPECT_NE(LoadError(good_).find("nested too deeply"), std::string::npos);
}

TEST_F(HostileTokenizerTest, WrongTypesNameTheirPlace) {
  const std::vector<std::pair<std::string, Json>> places = {
      {"/model", 5},
      {"/model", nullptr},
      {"/model/type", Json::array()},
      {"/model/vocab", Json::array()},
      {"/model/vocab", {{"a", "b"}}},
      {"/model/vocab", {{"a", -1}}},
      {"/model/vocab", {{"a", 1.5}}},
      {"/model/vocab", {{"a", 18446744073709551615u}}},
      {"/model/vocab", {{"a", 1 << 30}}},
      {"/model/vocab", {{"a", 1}, {"b", 1}}},
      {"/model/merges", {{"a", 1}}},
      {"/model/merges", {"a"}},
      {"/model/merges", {"a b c"}},
      {"/model/merges", {{"a"}}},
      {"/model/merges", {7}},
      {"/model/merges", {"a nosuchtoken"}},
      {"/model/byte_fallback", "yes"},
      {"/model/ignore_merges", 1},
      {"/model/continuing_subword_prefix", 3},
      {"/added_tokens", {{"id", 1}}},
      {"/added_tokens", {5}},
      {"/added_tokens", {{{"id", 1}}}},
      {"/added_tokens", {{{"id", -1}, {"content", "x"}}}},
      {"/added_tokens", {{{"id", 4294967296}, {"content", "x"}}}},
      {"/added_tokens", {{{"id", 1}, {"content", "x"}, {"lstrip", 0}}}},
      {"/normalizer", "NFC"},
      {"/normalizer", {{"type", 3}}},
      {"/normalizer", {{"type", "Sequence"}, {"normalizers", 3}}},
      {"/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", "("}}}, {"content", ""}}},
      {"/normalizer", {{"type", "Replace"}, {"pattern", {{"Regex", 1}}}, {"content", ""}}},
      {"/normalizer", {{"type", "Prepend"}}},
      {"/pre_tokenizer",
       {{"type", "Split"}, {"pattern", {{"Regex", "["}}}, {"behavior", "Isolated"}}},
      {"/pre_tokenizer", {{"type", "Split"}, {"pattern", {{"String", "a"}}}, {"behavior", "Odd"}}},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"replacement", ""}}},
      {"/pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "sometimes"}}},
      {"/pre_tokenizer", {{"type", "CharDelimiterSplit"}, {"delimiter", "ab"}}},
      {"/post_processor", {{"type", "TemplateProcessing"}, {"single", Json::array()}}},
      {"/post_processor", {{"type", "TemplateProcessing"}, {"single", {{{"Odd", 1}}}}}},
      {"/post_processor", {{"type", "RobertaProcessing"}, {"sep", {"a"}}, {"cls", {"a", 1}}}},
      {"/decoder", {{"type", "Strip"}, {"content", ""}}},
      {"/decoder", {{"type", "Strip"}, {"content", " "}, {"start", -1}}},
      {"/decoder", {{"type", "Sequence"}}},
  };
  for (const auto& [place, value] : places) {
    Json json = good_;
    json[Json::json_pointer(place)] = value;
    const std::string error = LoadError(json);
    const std::string component = place.substr(0, place.find('/', 1));
    EXPECT_NE(error.find("[tokenizer.json] "), std::string::npos) << place << value << error;
    // An absent model is missed at the top.
    if (!value.is_null()) {
      EXPECT_NE(error.find(component), std::string::npos) << value << error;
    }
  }
}

TEST_F(HostileTokenizerTest, UnknownComponentsAreNamed) {
  const std::vector<std::pair<std::string, std::string>> places = {
      {"/model", "Unigram"},
      {"/normalizer", "Precompiled"},
      {"/pre_tokenizer", "UnicodeScripts"},
      {"/post_processor", "Odd"},
      {"/decoder", "CTC"}};
  for (const auto& [place, type] : places) {
    Json json = good_;
    json[Json::json_pointer(place)] = {{"type", type}};
    const std::string error = LoadError(json);
    EXPECT_NE(error.find("\"" + type + "\""), std::string::npos) << error;
    EXPECT_NE(error.find("known"), std::string::npos) << error;
    EXPECT_NE(error.find(place), std::string::npos) << error;
  }
}

TEST_F(HostileTokenizerTest, APatternThatBacktracksWithoutEndIsCutOff) {
  good_["pre_tokenizer"] = {
      {"type", "Split"}, {"pattern", {{"Regex", "(a+)+$|(?:(a*)*)*b"}}}, {"behavior", "Isolated"}};
  good_["decoder"] = nullptr;
  auto tokenizer = Load(good_);
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode(std::string(60, 'a') + "!", false).size(), 61u);
}

TEST_F(HostileTokenizerTest, ConfigFilesWithWrongTypesAreErrors) {
  for (const Json& config :
       {Json::array(), Json{{"eos_token", 5}}, Json{{"bos_token", {{"content", 1}}}},
        Json{{"add_bos_token", "x"}}, Json{{"chat_template", 5}}, Json{{"added_tokens_decoder", 5}},
        Json{{"added_tokens_decoder", {{"x", {{"content", "a"}}}}}},
        Json{{"added_tokens_decoder", {{"99999999999", {{"content", "a"}}}}}},
        Json{{"additional_special_tokens", {1}}}}) {
    Write("tokenizer_config.json", config);
    EXPECT_NE(LoadError(good_).find("[tokenizer_config.json]"), std::string::npos) << config;
  }
  std::filesystem::remove(folder_ / "tokenizer_config.json");
  Write("added_tokens.json", Json{{"a", "b"}});
  EXPECT_NE(LoadError(good_).find("[added_tokens.json]"), std::string::npos);
}

// Whatever a damaged file still means, it loads or is refused, and what loads encodes.
TEST_F(HostileTokenizerTest, DamagedFilesNeverEndTheProcess) {
  good_["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "NFC"}}}}};
  good_["added_tokens"] = {AddedTokenJson(258, "<s>")};
  const std::string text = good_.dump();
  RandomStream random(11);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string damaged = text;
    for (uint64_t flips = 1 + random.Below(3); flips > 0; --flips) {
      damaged[random.Below(damaged.size())] ^= static_cast<char>(1 << random.Below(8));
    }
    if (random.Below(8) == 0) damaged.resize(random.Below(damaged.size()));
    Write("tokenizer.json", damaged);
    auto tokenizer = Tokenizer::Load(folder_);
    tokenizer.ok() ? ++loaded : ++refused;
    if (tokenizer.ok()) {
      (void)(*tokenizer)->Decode((*tokenizer)->Encode("hello <s> \xF0 wörld", true), false);
    }
  }
  EXPECT_GT(loaded, 10);
  EXPECT_GT(refused, 10);
}

TEST_F(HostileTokenizerTest, AVocabularyTextIsBertsOrAnError) {
  Write("vocab.txt", std::string("[UNK]\r\n[CLS]\r\n[SEP]\r\nship\r\n##s\r\nShip\r\n"));
  const auto tokenizer = Load();
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->Encode("Ships", true), (Ids{1, 3, 4, 2}));
  const std::string folded = tokenizer->fingerprint();
  Write("tokenizer_config.json", std::string(R"({"do_lower_case": false})"));
  EXPECT_EQ(Load()->Encode("Ships", true), (Ids{1, 5, 4, 2}));
  EXPECT_NE(Load()->fingerprint(), folded);
  Write("vocab.txt", std::string("[UNK]\n[CLS]\nship\n"));
  EXPECT_NE(LoadError().find("has no token [SEP]"), std::string::npos);
  Write("vocab.txt", std::string("[CLS]\n[SEP]\n"));
  EXPECT_NE(LoadError().find("[UNK]"), std::string::npos);
  Write("vocab.txt", std::string("[UNK]\n[CLS]\n[SEP]\n\xFF\n"));
  EXPECT_NE(LoadError().find("line 4 is not UTF-8"), std::string::npos);
  Write("vocab.txt", std::string(""));
  EXPECT_NE(LoadError().find("has no token"), std::string::npos);
}

}  // namespace
}  // namespace weft
