// Each component of tokenizer.json by itself, on texts small enough to follow by hand.
// same JSON.

#include <gtest/gtest.h>

#include "common/formats/tokenizer/added_tokens.h"
#include "common/formats/tokenizer/decoder.h"
#include "common/formats/tokenizer/normalizer.h"
#include "common/formats/tokenizer/post_processor.h"
#include "common/formats/tokenizer/pre_tokenizer.h"
#include "common/formats/tokenizer/token_model.h"
#include "common/formats/tokenizer/unicode.h"
#include "tests/unit/formats/tokenizer_fixture.h"

namespace weft {
namespace {

using Texts = std::vector<std::string>;

std::string Normalize(const Json& json, std::string text) {
  const JsonDocument document = Parsed(json);
  auto normalizer = ReadNormalizer(document.root());
  EXPECT_TRUE(normalizer.ok()) << normalizer.status();
  if (normalizer.ok()) (*normalizer)->Apply(text);
  return text;
}

Texts Cut(const Json& json, const std::string& text, bool at_start = true) {
  const JsonDocument document = Parsed(json);
  auto pre_tokenizer = ReadPreTokenizer(document.root());
  EXPECT_TRUE(pre_tokenizer.ok()) << pre_tokenizer.status();
  Texts out;
  if (!pre_tokenizer.ok()) return out;
  Words words{text, {{{0, text.size()}, at_start}}};
  (*pre_tokenizer)->Apply(words);
  for (const auto& word : words.list) {
    out.push_back(words.text.substr(word.range.begin, word.range.end - word.range.begin));
  }
  return out;
}

std::string Decoded(const Json& json, Texts pieces) {
  const JsonDocument document = Parsed(json);
  auto decoder = ReadDecoder(document.root());
  EXPECT_TRUE(decoder.ok()) << decoder.status();
  if (decoder.ok()) (*decoder)->Apply(pieces);
  std::string text;
  for (const std::string& piece : pieces) text += piece;
  return text;
}

Ids Tokenize(const Json& json, const std::string& word) {
  const JsonDocument document = Parsed(json);
  auto model = ReadTokenModel(document.root());
  EXPECT_TRUE(model.ok()) << model.status();
  Ids ids;
  if (model.ok()) (*model)->Tokenize(word, ids);
  return ids;
}

Json Split(const std::string& regex, const std::string& behavior, bool invert = false) {
  return {{"type", "Split"},
          {"pattern", {{"Regex", regex}}},
          {"behavior", behavior},
          {"invert", invert}};
}

TEST(NormalizerTest, UnicodeFormsComposeAndDecompose) {
  EXPECT_EQ(Normalize({{"type", "NFC"}}, "e\u0301 ﬁ"), "é ﬁ");
  EXPECT_EQ(Normalize({{"type", "NFD"}}, "é ﬁ"), "e\u0301 ﬁ");
  EXPECT_EQ(Normalize({{"type", "NFKC"}}, "e\u0301 ﬁ Ａ ½"), "é fi A 1⁄2");
  EXPECT_EQ(Normalize({{"type", "NFKD"}}, "é ﬁ"), "e\u0301 fi");
  EXPECT_EQ(Normalize({{"type", "NFC"}}, std::string("a\0b\u0301", 5)),
            std::string("a\0b\u0301", 5));
  EXPECT_EQ(Normalize({{"type", "NFC"}}, "각"), "각") << "Hangul composes by rule";
}

TEST(NormalizerTest, CaseAccentsAndBlanks) {
  EXPECT_EQ(Normalize({{"type", "Lowercase"}}, "ÄΣIİ"), "äσii\u0307");
  const Json accents = {{"type", "Sequence"},
                        {"normalizers", {{{"type", "NFD"}}, {{"type", "StripAccents"}}}}};
  EXPECT_EQ(Normalize(accents, "Crème brûlée"), "Creme brulee");
  EXPECT_EQ(Normalize({{"type", "Nmt"}}, "a\u0001b\tc\u200Bd"), "ab c d");
  EXPECT_EQ(
      Normalize({{"type", "Strip"}, {"strip_left", true}, {"strip_right", false}}, " \u3000a "),
      "a ");
  EXPECT_EQ(Normalize({{"type", "Strip"}, {"strip_left", true}, {"strip_right", true}}, " \n "),
            "");
}

TEST(NormalizerTest, BertCleansSetsIdeographsApartAndFolds) {
  const Json bert = {{"type", "BertNormalizer"}, {"strip_accents", nullptr}};
  EXPECT_EQ(Normalize(bert, "Crème\tBRÛLÉE"), "creme brulee");
  EXPECT_EQ(Normalize(bert, std::string("a\0\u0001b\u200B\uFFFD\u2003c\r", 15)), "ab c ");
  EXPECT_EQ(Normalize(bert, "x中文"), "x 中  文 ");
  EXPECT_EQ(Normalize(bert, "\U0002B820\U0002B920"), "\U0002B820 \U0002B920 ")
      << "the library's range, not the standard's";
  const auto with = [&](const char* setting, bool value) {
    Json changed = bert;
    changed[setting] = value;
    return changed;
  };
  EXPECT_EQ(Normalize(with("lowercase", false), "CRÈME"), "CRÈME")
      << "accents go with the case where the file does not say";
  EXPECT_EQ(Normalize(with("strip_accents", false), "CRÈME"), "crème");
  EXPECT_EQ(Normalize(with("handle_chinese_chars", false), "x中"), "x中");
  EXPECT_EQ(Normalize(with("clean_text", false), "a\tb"), "a\tb");
}

TEST(NormalizerTest, ReplacePrependAndByteLevel) {
  EXPECT_EQ(
      Normalize({{"type", "Replace"}, {"pattern", {{"String", "aa"}}}, {"content", "b"}}, "aaaaa"),
      "bba");
  EXPECT_EQ(Normalize({{"type", "Replace"}, {"pattern", {{"Regex", " {2,}"}}}, {"content", " "}},
                      "a   b"),
            "a b");
  EXPECT_EQ(Normalize({{"type", "Prepend"}, {"prepend", "▁"}}, "a"), "▁a");
  EXPECT_EQ(Normalize({{"type", "Prepend"}, {"prepend", "▁"}}, ""), "") << "nothing before nothing";
  EXPECT_EQ(Normalize({{"type", "ByteLevel"}}, " é"), "ĠÃ©");
}

TEST(SplitTest, BehavioursDecideWhereMatchesGo) {
  const std::string text = "the-final--countdown";
  EXPECT_EQ(Cut(Split("-", "Removed"), text), (Texts{"the", "final", "countdown"}));
  EXPECT_EQ(Cut(Split("-", "Isolated"), text), (Texts{"the", "-", "final", "-", "-", "countdown"}));
  EXPECT_EQ(Cut(Split("-", "MergedWithPrevious"), text),
            (Texts{"the-", "final-", "-", "countdown"}));
  EXPECT_EQ(Cut(Split("-", "MergedWithNext"), text), (Texts{"the", "-final", "-", "-countdown"}));
  EXPECT_EQ(Cut(Split("-", "Contiguous"), text), (Texts{"the", "-", "final", "--", "countdown"}));
  EXPECT_EQ(Cut(Split("-", "Removed", true), text), (Texts{"-", "-", "-"}));
  EXPECT_EQ(Cut(Split("[a-z]+", "Isolated", true), "ab--c"), (Texts{"ab", "--", "c"}));
  EXPECT_EQ(Cut(Split("x*", "Isolated"), "axb"), (Texts{"a", "x", "b"})) << "empty matches";
}

TEST(PreTokenizerTest, TheSplitPatternsOfTheCommonFamilies) {
  const std::string llama3 =
      R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
  EXPECT_EQ(Cut(Split(llama3, "Isolated"), "It'S 12345 l\u00F6sbar!!\n\n  ja"),
            (Texts{"It", "'S", " ", "123", "45", " l\u00F6sbar", "!!\n\n", " ", " ja"}));
  const Json gpt2 = {{"type", "ByteLevel"}, {"add_prefix_space", false}};
  EXPECT_EQ(Cut(gpt2, "It's 123  x\n"), (Texts{"It", "'s", "Ġ123", "Ġ", "Ġx", "Ċ"}));
  const Json smollm = {
      {"type", "Sequence"},
      {"pretokenizers", {{{"type", "Digits"}, {"individual_digits", true}}, gpt2}}};
  EXPECT_EQ(Cut(smollm, "a 12"), (Texts{"a", "Ġ", "1", "2"}));
  EXPECT_EQ(Cut({{"type", "ByteLevel"}, {"add_prefix_space", true}}, "a b"), (Texts{"Ġa", "Ġb"}));
  EXPECT_EQ(Cut({{"type", "ByteLevel"}, {"add_prefix_space", true}, {"use_regex", false}}, " a b"),
            (Texts{"ĠaĠb"}));
}

TEST(PreTokenizerTest, MetaspaceMarksBlanks) {
  const auto metaspace = [](const char* scheme, bool split) {
    return Json{
        {"type", "Metaspace"}, {"replacement", "▁"}, {"prepend_scheme", scheme}, {"split", split}};
  };
  EXPECT_EQ(Cut(metaspace("always", true), "a b  c", false), (Texts{"▁a", "▁b", "▁", "▁c"}));
  EXPECT_EQ(Cut(metaspace("first", true), "a b", false), (Texts{"a", "▁b"}));
  EXPECT_EQ(Cut(metaspace("first", true), "a b", true), (Texts{"▁a", "▁b"}));
  EXPECT_EQ(Cut(metaspace("never", false), "a b"), (Texts{"a▁b"}));
  EXPECT_EQ(Cut(metaspace("always", false), " a"), (Texts{"▁a"})) << "one is enough";
  EXPECT_EQ(Cut({{"type", "Metaspace"}, {"add_prefix_space", false}}, "a"), (Texts{"a"}));
}

TEST(PreTokenizerTest, ClassesOfCharacters) {
  EXPECT_EQ(Cut({{"type", "Whitespace"}}, "Ab_1 (c)…²"), (Texts{"Ab_1", "(", "c", ")…²"}));
  EXPECT_EQ(Cut({{"type", "WhitespaceSplit"}}, "a,b\u3000c"), (Texts{"a,b", "c"}));
  EXPECT_EQ(Cut({{"type", "Punctuation"}}, "a,$b"), (Texts{"a", ",", "$", "b"}));
  EXPECT_EQ(Cut({{"type", "Punctuation"}, {"behavior", "Contiguous"}}, "a,$b"),
            (Texts{"a", ",$", "b"}));
  EXPECT_EQ(Cut({{"type", "CharDelimiterSplit"}, {"delimiter", "é"}}, "aéb"), (Texts{"a", "b"}));
  EXPECT_EQ(Cut({{"type", "Digits"}, {"individual_digits", false}}, "a12Ⅷb"),
            (Texts{"a", "12Ⅷ", "b"}));
  EXPECT_TRUE(IsWordCharacter(0x24B6)) << "a circled letter is alphabetic";
  EXPECT_FALSE(IsWhitespace(0x180E)) << "a separator until Unicode 6.3";
}

TEST(PreTokenizerTest, BertCutsAtBlanksAndSetsPunctuationApart) {
  EXPECT_EQ(Cut({{"type", "BertPreTokenizer"}}, "don't  stop!? a_b…"),
            (Texts{"don", "'", "t", "stop", "!", "?", "a", "_", "b", "…"}));
}

TEST(RegexTest, OnigurumaIsRewrittenForPcre2) {
  const auto rewritten = [](std::string_view pattern) { return FromOniguruma(pattern).value(); };
  EXPECT_EQ(rewritten("\\s[^\\S]"), "\\p{White_Space}[^\\P{White_Space}]");
  EXPECT_EQ(rewritten("(?m:.)(?i-m:a)(?=b)"), "(?s:.)(?i-s:a)(?=b)");
  EXPECT_EQ(rewritten("\\h[\\hx]"), "[0-9a-fA-F][0-9a-fA-Fx]");
  EXPECT_EQ(rewritten("[]a][^]a]"), "[\\]a][^\\]a]");
  EXPECT_EQ(rewritten("[[:alpha:]x]\\p{L}++"), "[[:alpha:]x]\\p{L}++");
  for (const char* pattern :
       {"[a[b]]", "[a&&b]", "a{1,2}+", "(*FAIL)", "[\\W]", "[\\H]", "a\\", "[[:x"}) {
    auto refused = FromOniguruma(pattern);
    ASSERT_FALSE(refused.ok()) << pattern;
    EXPECT_NE(refused.status().message().find("not supported"), std::string::npos);
  }
}

TEST(RegexTest, MatchesDoNotOverlapAndEmptyOnesAreSkipped) {
  const auto found = [](std::string_view pattern, std::string_view text) {
    std::vector<TextRange> ranges;
    Regex::Compile(pattern).value().FindAll(text, ranges);
    return ranges;
  };
  EXPECT_EQ(found("aa", "aaaaa"), (std::vector<TextRange>{{0, 2}, {2, 4}}));
  EXPECT_EQ(found("b*", "aébb"), (std::vector<TextRange>{{3, 5}}));
  EXPECT_EQ(found("^x$", "x\nx"), (std::vector<TextRange>{{0, 1}, {2, 3}})) << "lines, as in Ruby";
  EXPECT_TRUE(found("\\s", "\u180E").empty());
  EXPECT_EQ(found("\\w+", "a\u0301_½").size(), 1u);
  // 8 MB of blanks exhaust the machine stack that compiled patterns have, not the interpreter's
  // heap.
  EXPECT_EQ(found("(?:a|b| )+", std::string(1 << 16, ' ')).size(), 1u);
  EXPECT_FALSE(Regex::Compile("\\C").ok()) << "half a character";
  EXPECT_FALSE(Regex::Compile(std::string(100'000, 'a')).ok());
}

TEST(DecoderTest, ByteTokensBecomeText) {
  EXPECT_EQ(Decoded({{"type", "ByteLevel"}}, {"ĠÃ", "©", "日"}), " é日") << "an added token stays";
  EXPECT_EQ(Decoded({{"type", "ByteFallback"}}, {"<0xE6>", "<0x97>", "<0xA5>", "a"}), "日a");
  EXPECT_EQ(Decoded({{"type", "ByteFallback"}}, {"<0xE6>", "<0x97>", "a"}), "\uFFFD\uFFFDa");
  EXPECT_EQ(Decoded({{"type", "ByteFallback"}}, {"<0xG0>", "<0x1>"}), "<0xG0><0x1>");
}

TEST(DecoderTest, EachKindPutsItsBlanksBack) {
  const Json llama = {{"type", "Sequence"},
                      {"decoders",
                       {{{"type", "Replace"}, {"pattern", {{"String", "▁"}}}, {"content", " "}},
                        {{"type", "ByteFallback"}},
                        {{"type", "Fuse"}},
                        {{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}}}};
  EXPECT_EQ(Decoded(llama, {"▁▁a", "▁b", "<0x0A>"}), " a b\n");
  EXPECT_EQ(Decoded({{"type", "Metaspace"}, {"prepend_scheme", "always"}}, {"▁a", "▁b"}), "a b");
  EXPECT_EQ(Decoded({{"type", "Metaspace"}, {"prepend_scheme", "never"}}, {"▁a", "▁b"}), " a b");
  EXPECT_EQ(Decoded({{"type", "BPEDecoder"}, {"suffix", "</w>"}}, {"a", "b</w>", "c</w>"}), "ab c");
  EXPECT_EQ(Decoded({{"type", "WordPiece"}, {"prefix", "##"}, {"cleanup", true}},
                    {"do", "##es", "n't", "."}),
            "doesn't.");
  EXPECT_EQ(Decoded({{"type", "Strip"}, {"content", "x"}, {"start", 1}, {"stop", 2}}, {"xxaxxx"}),
            "xax");
}

TEST(PostProcessorTest, TemplatesAndSequencesWrapTheIds) {
  const Json wrap = {{"type", "TemplateProcessing"},
                     {"single",
                      {{{"SpecialToken", {{"id", "B"}}}},
                       {{"Sequence", {{"id", "A"}}}},
                       {{"SpecialToken", {{"id", "E"}}}},
                       {{"SpecialToken", {{"id", "E"}}}}}},
                     {"special_tokens", {{"B", {{"ids", {7, 8}}}}, {"E", {{"ids", {9}}}}}}};
  const Json outer = {{"type", "BertProcessing"}, {"sep", {"s", 2}}, {"cls", {"c", 1}}};
  const JsonDocument document =
      Parsed({{"type", "Sequence"}, {"processors", {{{"type", "ByteLevel"}}, wrap, outer}}});
  auto read = ReadPostProcessor(document.root());
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->before, (Ids{1, 7, 8}));
  EXPECT_EQ(read->after, (Ids{9, 9, 2}));
}

Json WordPieceJson() {
  return {
      {"type", "WordPiece"},
      {"vocab",
       {{"[UNK]", 0}, {"un", 1}, {"una", 2}, {"##aff", 3}, {"##able", 4}, {"##é", 5}, {"é", 6}}},
      {"unk_token", "[UNK]"},
      {"continuing_subword_prefix", "##"},
      {"max_input_chars_per_word", 9}};
}

TEST(WordPieceTest, TheLongestPieceFromTheLeftCountsAndNoneMakesTheWordUnknown) {
  const Json model = WordPieceJson();
  EXPECT_EQ(Tokenize(model, "unaffable"), Ids{0}) << "una is longer, and nothing continues it";
  EXPECT_EQ(Tokenize(model, "unable"), Ids{0});
  EXPECT_EQ(Tokenize(model, "unaaffable"), Ids{0}) << "ten characters";
  EXPECT_EQ(Tokenize(model, "unaable"), (Ids{2, 4}));
  EXPECT_EQ(Tokenize(model, "ééé"), (Ids{6, 5, 5}));
  EXPECT_EQ(Tokenize(model, "ééééééééé").size(), 9u) << "characters count, not bytes";
  EXPECT_EQ(Tokenize(model, "un日"), Ids{0}) << "the pieces before the gap go as well";
  Json short_words = model;
  short_words["max_input_chars_per_word"] = 6;
  EXPECT_EQ(Tokenize(short_words, "unaable"), Ids{0});
  Json bare = model;
  bare.erase("type");
  EXPECT_EQ(Tokenize(bare, "unaable"), (Ids{2, 4})) << "told by its settings where no type is";
}

TEST(WordPieceTest, WhatItNeedsIsAskedFor) {
  const auto error = [](const Json& model) {
    const JsonDocument document = Parsed(model);
    return ReadTokenModel(document.root()).status().message();
  };
  Json model = WordPieceJson();
  model["unk_token"] = "<unk>";
  EXPECT_NE(error(model).find("\"<unk>\" is not in the vocabulary"), std::string::npos);
  model = WordPieceJson();
  model["max_input_chars_per_word"] = -1;
  EXPECT_NE(error(model).find("max_input_chars_per_word"), std::string::npos);
  model["max_input_chars_per_word"] = 1 << 30;
  EXPECT_NE(error(model).find("max_input_chars_per_word"), std::string::npos);
}

TEST(PostProcessorTest, PairsHaveATemplateOfTheirOwn) {
  const auto pair = [](const Json& json) {
    const JsonDocument document = Parsed(json);
    auto read = ReadPostProcessor(document.root());
    EXPECT_TRUE(read.ok()) << read.status();
    std::string text;  // "7:0 A:0 …"
    for (const PairPiece& piece : read->pair) {
      if (!text.empty()) text += ' ';
      if (piece.source == PairPiece::Source::kFirst) text += 'A';
      if (piece.source == PairPiece::Source::kSecond) text += 'B';
      for (const int32_t id : piece.ids) text += std::to_string(id);
      text += ':' + std::to_string(piece.type);
    }
    return text;
  };
  const Json wrap = {{"cls", {"[CLS]", 7}}, {"sep", {"[SEP]", 8}}};
  Json bert = wrap, roberta = wrap;
  bert["type"] = "BertProcessing";
  roberta["type"] = "RobertaProcessing";
  EXPECT_EQ(pair(bert), "7:0 A:0 8:0 B:1 8:1");
  EXPECT_EQ(pair(roberta), "7:0 A:0 8:0 8:0 B:0 8:0");
  EXPECT_EQ(pair({{"type", "ByteLevel"}}), "");
  const auto special = [](int type) {
    return Json{{"SpecialToken", {{"id", "s"}, {"type_id", type}}}};
  };
  const auto text = [](const char* id, int type) {
    return Json{{"Sequence", {{"id", id}, {"type_id", type}}}};
  };
  Json written = {{"type", "TemplateProcessing"},
                  {"single", {text("A", 0)}},
                  {"pair", {text("B", 1), special(0), text("A", 0)}},
                  {"special_tokens", {{"s", {{"id", "s"}, {"ids", {9}}, {"tokens", {"s"}}}}}}};
  EXPECT_EQ(pair(written), "B:1 9:0 A:0");
  for (const Json& broken :
       {Json{text("A", 0), text("A", 0)}, Json{text("A", 0)}, Json{text("A", 0), text("C", 0)},
        Json{text("A", 0), text("B", 2)}, Json{text("A", 0), text("B", -1)}}) {
    written["pair"] = broken;
    const JsonDocument document = Parsed(written);
    EXPECT_EQ(ReadPostProcessor(document.root()).status().code(), Code::kInvalidArgument) << broken;
  }
}

TEST(BpeTest, WhatTheVocabularyLacksIsBytesOrUnknownOrDropped) {
  Json model = {{"type", "BPE"},
                {"vocab", {{"<unk>", 0}, {"a", 1}, {"<0xC3>", 2}, {"<0xA9>", 3}}},
                {"merges", Json::array()},
                {"unk_token", "<unk>"}};
  EXPECT_EQ(Tokenize(model, "aééa"), (Ids{1, 0, 0, 1}));
  model["fuse_unk"] = true;
  EXPECT_EQ(Tokenize(model, "aééa"), (Ids{1, 0, 1}));
  model["byte_fallback"] = true;
  EXPECT_EQ(Tokenize(model, "aé日"), (Ids{1, 2, 3, 0})) << "日's bytes are not all there";
  model["unk_token"] = nullptr;
  EXPECT_EQ(Tokenize(model, "日a"), Ids{1});
}

TEST(BpeTest, PrefixesAndSuffixesMarkThePlaceInTheWord) {
  const Json suffix = {{"type", "BPE"},
                       {"vocab", {{"a", 0}, {"b", 1}, {"b</w>", 2}, {"ab</w>", 3}}},
                       {"merges", {"a b</w>"}},
                       {"end_of_word_suffix", "</w>"}};
  EXPECT_EQ(Tokenize(suffix, "ab"), Ids{3});
  EXPECT_EQ(Tokenize(suffix, "bab"), (Ids{1, 3}));
  const Json prefix = {{"type", "BPE"},
                       {"vocab", {{"a", 0}, {"##b", 1}, {"ab", 2}, {"##a", 3}, {"##ba", 4}}},
                       {"merges", {"##b ##a", "a ##b"}},
                       {"continuing_subword_prefix", "##"}};
  EXPECT_EQ(Tokenize(prefix, "ab"), Ids{2});
  EXPECT_EQ(Tokenize(prefix, "aba"), (Ids{0, 4}));
}

// Where a merge takes a blank in on its right, words may not be cut at blanks.
TEST(BpeTest, BlanksInsideTokensAreRespected) {
  Json model = {{"type", "BPE"},
                {"vocab", {{"▁", 0}, {"a", 1}, {"▁a", 2}, {"a▁", 3}, {"▁▁", 4}}},
                {"merges", {"▁ a", "▁ ▁"}}};
  EXPECT_EQ(Tokenize(model, "▁a▁▁a"), (Ids{2, 0, 2}));
  model["merges"] = {"a ▁", "▁ ▁"};
  EXPECT_EQ(Tokenize(model, "▁a▁▁a"), (Ids{0, 3, 0, 1}));
}

std::vector<std::pair<int32_t, std::string>> Found(const AddedTokens& tokens,
                                                   const std::string& text) {
  std::vector<std::pair<int32_t, std::string>> out;
  for (const TokenOrText& part : tokens.Split(text, false)) {
    out.emplace_back(part.id, text.substr(part.range.begin, part.range.end - part.range.begin));
  }
  return out;
}

TEST(AddedTokensTest, BlanksAndWordsAroundThem) {
  using Parts = std::vector<std::pair<int32_t, std::string>>;
  const AddedTokens tokens({{.content = "<l>", .id = 1, .lstrip = true},
                            {.content = "<r>", .id = 2, .rstrip = true},
                            {.content = "word", .id = 3, .single_word = true}},
                           nullptr);
  EXPECT_EQ(Found(tokens, "a  <l> b"), (Parts{{-1, "a"}, {1, "  <l>"}, {-1, " b"}}));
  EXPECT_EQ(Found(tokens, "a <r>\n\u3000b"), (Parts{{-1, "a "}, {2, "<r>\n\u3000"}, {-1, "b"}}));
  EXPECT_EQ(Found(tokens, "<r> <l>"), (Parts{{2, "<r> "}, {1, "<l>"}}));
  EXPECT_EQ(Found(tokens, "word swords word!"),
            (Parts{{3, "word"}, {-1, " swords "}, {3, "word"}, {-1, "!"}}));
  EXPECT_TRUE(Found(tokens, "").empty());
}

}  // namespace
}  // namespace weft
