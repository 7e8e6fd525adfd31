// tokenizer.model: what the door lets through must not lead libsentencepiece out of its bounds, and
// gives ids of the vocabulary and text that is UTF-8.

#include "common/base/check.h"
#include "common/formats/tokenizer/vocabulary_files.h"
#include "common/formats/utf8.h"
#include "tests/fuzz/fuzz_target.h"
#include "tests/support/sentence_piece_builder.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  // The text comes last, for a model is no UTF-8 and may hold the separator.
  const size_t cut = input.rfind(kSeparator);
  const std::string_view model = input.substr(0, cut);
  const std::string_view text = cut == input.npos ? "" : input.substr(cut + 1);
  TokenizerSettings settings;
  settings.bos_token = "<s>";
  settings.add_eos = true;
  settings.added.push_back({.content = "<|x|>", .id = 100, .special = true});
  const auto tokenizer = ReadSentencePiece(model, settings);
  if (!tokenizer.ok()) return;
  for (const std::string_view each : {text, std::string_view("a b<s>\xF0 <|x|>日")}) {
    const std::vector<int32_t> ids = (*tokenizer)->Encode(each, true);
    for (const int32_t id : ids) {
      WEFT_CHECK(id >= 0 && id < (*tokenizer)->vocab_size(), id);
      WEFT_CHECK(IsValidUtf8((*tokenizer)->IdToToken(id)), id);
    }
    WEFT_CHECK(IsValidUtf8((*tokenizer)->Decode(ids, false)));
    WEFT_CHECK(IsValidUtf8((*tokenizer)->Decode(ids, true)));
  }
}

Seeds MakeSeeds() {
  using namespace testing::sentence_piece;  // NOLINT: a builder's words
  std::string bytes;                        // a model that writes what it does not know as bytes
  for (int b = 0; b < 256; ++b) {
    constexpr std::string_view kDigits = "0123456789ABCDEF";
    bytes += Piece(std::string("<0x") + kDigits[static_cast<size_t>(b) / 16] +
                       kDigits[static_cast<size_t>(b) % 16] + ">",
                   0, 6);
  }
  const std::string map = Charsmap(0, std::string("x\0", 2));
  return {Joined({Model(), "a ab b"}), Joined({Model("", false), " a<s>b</s>"}),
          Joined({Model(map), "ab a"}), Joined({Model() + bytes + Bytes(2, Number(35, 1)), "é日"}),
          Joined({Model() + Bytes(2, Number(3, 1)), "unigram ab"})};
}

}  // namespace

Target SentencePieceModel() { return {"sentence_piece", Run, MakeSeeds, {"\x0A", "\x12", "<s>"}}; }

}  // namespace weft::fuzz
