// tokenizer.json and a text: ids of the vocabulary, and text that is UTF-8; where nothing is
// special or dropped the same text twice gives the same ids.

#include "common/base/check.h"
#include "common/base/limits.h"
#include "common/formats/tokenizer/vocabulary_files.h"
#include "common/formats/utf8.h"
#include "tests/fuzz/fuzz_target.h"

namespace weft::fuzz {
namespace {

void Run(std::string_view input) {
  const std::vector<std::string_view> parts = Parts(input, 2);
  TokenizerSettings settings;
  settings.special_tokens = {"<s>", "</s>"};
  const auto tokenizer = ReadTokenizerJson(parts[0], settings);
  if (!tokenizer.ok()) {
    WEFT_CHECK(tokenizer.status().message().starts_with("[tokenizer.json]"), tokenizer.status());
    return;
  }
  WEFT_CHECK((*tokenizer)->vocab_size() <= limits::kTokenIdMax + 1);
  for (const bool special : {false, true}) {
    const std::vector<int32_t> ids = (*tokenizer)->Encode(parts[1], special);
    for (const int32_t id : ids) {
      WEFT_CHECK(id >= 0 && id < (*tokenizer)->vocab_size(), id);
    }
    WEFT_CHECK((*tokenizer)->Encode(parts[1], special) == ids);
    WEFT_CHECK(IsValidUtf8((*tokenizer)->Decode(ids, false)));
    WEFT_CHECK(IsValidUtf8((*tokenizer)->Decode(ids, true)));
  }
}

// A small BPE model under `around`, which holds the other components.
std::string Json(const std::string& around) {
  return R"({"model":{"type":"BPE","unk_token":"?","vocab":{"?":0,"a":1,"b":2,"ab":3,"▁":4,"▁a":5,)"
         R"("Ġ":6,"<0xE6>":7,"<s>":8},"merges":["a b",["▁","a"]],"byte_fallback":true}})" +
         around + "}";
}

Seeds MakeSeeds() {
  Seeds seeds;
  for (
      const char* around :
      {"", R"(,"added_tokens":[{"id":9,"content":"<|x|>","special":true,"lstrip":true}])",
       R"(,"normalizer":{"type":"Sequence","normalizers":[{"type":"NFKC"},{"type":"Lowercase"},)"
       R"({"type":"Replace","pattern":{"Regex":"a+"},"content":"a"},{"type":"Prepend","prepend":"▁"}]})",
       R"x(,"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\p{L}+|\\s+(?!\\S)"},)x"
       R"("behavior":"MergedWithNext","invert":true},"decoder":{"type":"ByteLevel"})",
       R"(,"pre_tokenizer":{"type":"Sequence","pretokenizers":[{"type":"Digits"},)"
       R"({"type":"Metaspace","prepend_scheme":"first"}]},"decoder":{"type":"Sequence",)"
       R"("decoders":[{"type":"ByteFallback"},{"type":"Fuse"},{"type":"Strip","start":1}]})",
       R"(,"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},)"
       R"({"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[8]}}})"}) {
    seeds.push_back(Joined({Json(around), "ab a <|x|> 12 é日\xF0"}));
  }
  return seeds;
}

}  // namespace

Target TokenizerJson() {
  return {"tokenizer_json",
          Run,
          MakeSeeds,
          {"\"type\"", "\"ByteLevel\"", "\"WordPiece\"", "\"Strip\"", "\"NFD\"", "\"Whitespace\"",
           "\"Isolated\"", "\"Contiguous\"", "(a*)*", "(?=", "\\K", "[^", "{1,9}", "<s>"}};
}

}  // namespace weft::fuzz
