// tokenizer.model: a small sentencepiece model, whole and damaged.

#include "common/base/random.h"
#include "common/formats/tokenizer/sentence_piece_proto.h"
#include "tests/support/sentence_piece_builder.h"
#include "tests/unit/formats/tokenizer_fixture.h"

namespace weft {
namespace {

using testing::sentence_piece::Bytes;
using testing::sentence_piece::Charsmap;
using testing::sentence_piece::kControl;
using testing::sentence_piece::Model;
using testing::sentence_piece::Number;
using testing::sentence_piece::Piece;
using testing::sentence_piece::Unit;

class SentencePieceTest : public TokenizerFolderTest {
 protected:
  std::unique_ptr<Tokenizer> LoadModel(const std::string& model) {
    Write("tokenizer.model", model);
    return Load();
  }
};

TEST_F(SentencePieceTest, TheLibraryEncodesAndBosIsAddedWhereAsked) {
  auto tokenizer = LoadModel(Model());
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->vocab_size(), 9);
  EXPECT_EQ(tokenizer->Encode("a b", false), (Ids{3, 6, 8}));
  EXPECT_EQ(tokenizer->Encode("ab", true), (Ids{1, 5}));
  EXPECT_EQ(tokenizer->Encode("", true), Ids{1});
  EXPECT_EQ(tokenizer->Decode(Ids{1, 3, 6, 8, 2}, true), "a b");
  Write("tokenizer_config.json",
        Json{{"add_bos_token", false}, {"add_eos_token", true}, {"eos_token", "</s>"}});
  tokenizer = Load();
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("a", true), (Ids{3, 2}));
  EXPECT_EQ(tokenizer->eos_id(), 2);
}

TEST_F(SentencePieceTest, ControlTokensInTheTextAreTokensAsHuggingFaceHasThem) {
  auto tokenizer = LoadModel(Model());
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("<s>a</s>", false), (Ids{1, 3, 2}));
  EXPECT_EQ(tokenizer->TokenToId("</s>"), 2);
  EXPECT_EQ(tokenizer->TokenToId("zzz"), std::nullopt);
  EXPECT_EQ(tokenizer->IdToToken(3), "▁a");
  EXPECT_EQ(tokenizer->IdToToken(9), "");
}

TEST_F(SentencePieceTest, TheFoldersAddedTokensAreOnTop) {
  Write("added_tokens.json", Json{{"<|im_end|>", 9}, {"</s>", 77}});
  Write("tokenizer_config.json", Json{{"eos_token", "<|im_end|>"}});
  auto tokenizer = LoadModel(Model());
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("a<|im_end|>b</s>", false), (Ids{3, 9, 6, 8, 2}));
  EXPECT_EQ(tokenizer->eos_id(), 9);
  EXPECT_EQ(tokenizer->vocab_size(), 10);
  EXPECT_EQ(tokenizer->Decode(Ids{3, 9}, true), "a");
}

TEST_F(SentencePieceTest, WithoutADummyPrefixTheFirstBlankIsTheTexts) {
  auto tokenizer = LoadModel(Model("", false));
  ASSERT_TRUE(tokenizer);
  EXPECT_EQ(tokenizer->Encode("a", false), Ids{7});
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(" a", false), false), " a");
}

TEST_F(SentencePieceTest, WhatIsNoModelIsRefused) {
  const std::string good = Model();
  for (const std::string& bytes :
       {std::string(), std::string("\x08"), std::string("hello"),
        good.substr(0, good.size() / 2 + 1), Bytes(1, "\xFF\xFF"), Bytes(1, Bytes(1, "\xFF")),
        std::string("\x0A\xFF\xFF\xFF\xFF\x0F")}) {
    Write("tokenizer.model", bytes);
    EXPECT_NE(LoadError().find("[tokenizer.model]"), std::string::npos);
  }
}

TEST(SentencePieceProtoTest, CharacterMapsThatLeaveTheirBoundsAreRefused) {
  const std::string text("x\0", 2);
  const auto accepted = [](const std::string& map) {
    return ExamineSentencePieceModel(Model(map)).ok();
  };
  EXPECT_TRUE(accepted(Charsmap(0, text)));
  EXPECT_FALSE(accepted(Charsmap(400 << 10, text))) << "a step out of the only block";
  EXPECT_FALSE(accepted(Charsmap((1u << 10) | (1u << 9), text)))
      << "a step of 256 times its offset";
  EXPECT_FALSE(accepted(Charsmap(0, "no end"))) << "texts must end with NUL";
  EXPECT_FALSE(accepted(Charsmap(0, std::string("\xFF\0", 2))));
  EXPECT_FALSE(accepted(Unit(1 << 30) + "abcdefgh")) << "a trie longer than the map";
  EXPECT_FALSE(accepted(Unit(6) + "abcdefgh"));
  EXPECT_FALSE(accepted("abc"));
  // A leaf that points behind the texts: every unit has one, and their common value is 0x100.
  EXPECT_FALSE(accepted(Charsmap(0x100, text)));
  EXPECT_TRUE(accepted(Charsmap(0x100, std::string(0x101, '\0'))));
}

// The library would encode no text with the character in it.
TEST_F(SentencePieceTest, AControlTokenThatIsTextIsRefusedUnlessTheModelLooksForItElsewhere) {
  for (const char* token : {"▁", "x", "日", "▁word"}) {
    const std::string model = Model() + Piece(token, 0, kControl);
    const bool twice = std::string(token) == "▁";  // the library's own words
    Write("tokenizer.model", model);
    const std::string error = LoadError();
    EXPECT_NE(error.find(Str("control token 9 is \"", token, "\", which is text")),
              std::string::npos)
        << error;
    if (twice) continue;
    const auto unigram = LoadModel(model + Bytes(2, Number(3, 1)));
    ASSERT_TRUE(unigram) << token;
    EXPECT_FALSE(unigram->Encode("word 日 x", false).empty());
  }
  for (const char* token : {"xy", "[MASK]", "<|▁|>"}) {
    EXPECT_TRUE(LoadModel(Model() + Piece(token, 0, kControl))) << token;
  }
}

// As the library does: what has another wire type or an unknown number is as good as absent.
TEST(SentencePieceProtoTest, FieldsThatTheLibraryDoesNotKnowChangeNothing) {
  const std::string control = Bytes(1, "x") + Number(3, kControl);
  const auto type = [](const std::string& piece) {
    const auto facts = ExamineSentencePieceModel(Bytes(1, piece));
    return facts.ok() ? Str(facts->pieces[0].text, " ", facts->pieces[0].type) : "refused";
  };
  EXPECT_EQ(type(control), "x 3");
  EXPECT_EQ(type(control + Number(3, 7)), "x 3") << "no such type";
  EXPECT_EQ(type(control + Number(3, 0)), "x 3");
  EXPECT_EQ(type(control + Bytes(3, "1")), "x 3") << "bytes where a number belongs";
  EXPECT_EQ(type(control + Number(1, 5)), "x 3") << "a number where bytes belong";
  EXPECT_EQ(type(control + Number(3, (uint64_t{1} << 32) + 4)), "x 4") << "the low 32 bits count";
  EXPECT_EQ(type(Bytes(1, "x")), "x 1");
}

TEST(SentencePieceProtoTest, FactsAreReadInOrder) {
  auto facts = ExamineSentencePieceModel(Model("", false));
  ASSERT_TRUE(facts.ok()) << facts.status();
  ASSERT_EQ(facts->pieces.size(), 9u);
  EXPECT_EQ(facts->pieces[1].text, "<s>");
  EXPECT_EQ(facts->pieces[1].type, SentencePieceFacts::kControl);
  EXPECT_FALSE(facts->add_dummy_prefix);
}

TEST_F(SentencePieceTest, DamagedModelsNeverEndTheProcess) {
  const std::string good = Model(Charsmap(0, std::string("x\0", 2)));
  RandomStream random(5);
  int loaded = 0, refused = 0;
  for (int i = 0; i < 300; ++i) {
    std::string damaged = good;
    for (uint64_t flips = 1 + random.Below(3); flips > 0; --flips) {
      // Mostly in the pieces and the settings, which are few bytes beside the character map.
      const size_t range = random.Below(4) == 0 ? damaged.size() : 160;
      const size_t place = random.Below(range);
      damaged[random.Below(2) == 0 ? place : damaged.size() - 1 - place] ^=
          static_cast<char>(1 << random.Below(8));
    }
    Write("tokenizer.model", damaged);
    auto tokenizer = Tokenizer::Load(folder_);
    tokenizer.ok() ? ++loaded : ++refused;
    if (tokenizer.ok()) {
      const Ids ids = (*tokenizer)->Encode("a ab <s> \xF0 wörld 日本", true);
      (void)(*tokenizer)->Decode(ids, false);
      for (const int32_t id : ids) EXPECT_LT(id, (*tokenizer)->vocab_size());
    }
  }
  EXPECT_GT(loaded, 20);
  EXPECT_GT(refused, 20);
}

}  // namespace
}  // namespace weft
